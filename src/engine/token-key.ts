/** What a peer makes of its token, in Node as in a browser. `token.ts` says what tokens are. */

/** What passes begin with. */
export const PASS_PREFIX = 'skein1';

/** What a peer tells of its token, '' for the secret itself, and the key that it proves to know. */
export interface TokenKey {
  readonly claims: string;
  readonly key: Uint8Array | string;
}

function decodeBase64Url(text: string): Uint8Array | null {
  try {
    return Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (character) =>
      character.charCodeAt(0),
    );
  } catch {
    return null;
  }
}

/** From a token as users have it. */
export function tokenKey(token: string): TokenKey {
  const [prefix, claims, encoded, ...rest] = token.split('.');
  const isPass = prefix === PASS_PREFIX && claims !== undefined && encoded !== undefined && rest.length === 0;
  const key = isPass ? decodeBase64Url(encoded) : null;
  return isPass && key !== null ? { claims, key } : { claims: '', key: token };
}
