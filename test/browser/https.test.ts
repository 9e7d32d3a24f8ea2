/** A tab of a page that came by HTTPS joins by wss://, as browsers demand of such a page. */
import { createHash, X509Certificate } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { Coordinator, join } from 'skein';
import { expect, test } from 'vitest';
import { TestAuthority } from '../harness/certificates.ts';
import { TestBrowser } from '../harness/chromium.ts';
import { requireChromium, requireOpenssl } from '../harness/requirements.ts';

const FOLDER = fileURLToPath(new URL('../../dist/browser/', import.meta.url));
const TOKEN = 'a token of this test';

test('a tab joins by wss:// and adds up with a peer that came by TLS', { timeout: 60_000 }, async (context) => {
  requireChromium(context);
  requireOpenssl(context);
  const certificates = new TestAuthority().issue('127.0.0.1');
  const options = { port: 0, token: TOKEN, ...certificates, http: { port: 0, folder: FOLDER } };
  await using coordinator = await Coordinator.listen(options);
  const key = new X509Certificate(certificates.cert).publicKey.export({ type: 'spki', format: 'der' });
  // The only certificate that this browser believes without knowing its authority.
  const spki = createHash('sha256').update(key).digest('base64');
  await using browser = await TestBrowser.launch({ flags: [`--ignore-certificate-errors-spki-list=${spki}`] });
  const tab = await browser.open(coordinator.httpAddress!); // it has one
  const address = coordinator.httpAddress!.replace(/^http/, 'ws');
  expect(address).toMatch(/^wss:/);
  const joining = tab.run(
    async ({ skein, state }, { address, token }) => {
      state.group = await skein.join(address, { token, startWorldSize: 2, timeout: 30_000 });
      const tensor = new Float32Array(1_000).fill(1);
      await state.group.allReduce(tensor);
      return { sum: tensor[999], isolated: Reflect.get(globalThis, 'crossOriginIsolated') };
    },
    { address, token: TOKEN },
  );
  const transports = ['unix', 'tcp', 'webrtc'] as const;
  const peer = await join(coordinator.address, { token: TOKEN, ...certificates, transports, startWorldSize: 2 });
  const tensor = new Float32Array(1_000).fill(2);
  await peer.allReduce(tensor);
  expect(tensor[999]).toBe(3);
  expect(await joining).toEqual({ sum: 3, isolated: true });
  await peer.leave();
});
