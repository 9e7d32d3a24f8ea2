/**
 * The code blocks of a Markdown document, each with what a comment right before it says of how it is tried:
 *
 *     <!-- test: peers=2 prelude=tiny-training -->
 *     ```ts
 *
 * GitHub shows no comments. `blocks.test.ts` says which words there are.
 */
import MarkdownIt from 'markdown-it';

export interface Block {
  /** Path from the root of the repository. */
  readonly document: string;
  /** Of the fence, from 1. */
  readonly line: number;
  readonly language: string;
  readonly text: string;
  /** Words of the annotation: `peers=2` → peers: '2'; `run` → run: ''. */
  readonly words: ReadonlyMap<string, string>;
}

const ANNOTATION = /^<!-- test:\s*(.*?)\s*-->$/s;
const WORD = /([\w-]+)(?:=(?:"([^"]*)"|(\S+)))?/g;

function wordsOf(comment: string): Map<string, string> {
  const body = ANNOTATION.exec(comment.trim())?.[1];
  if (body === undefined) return new Map();
  return new Map([...body.matchAll(WORD)].map(([, name, quoted, plain]) => [name!, quoted ?? plain ?? '']));
}

/** What precedes the fence, without blank lines between. */
export function blocksOf(document: string, text: string): Block[] {
  const blocks: Block[] = [];
  let before = '';
  let isItem = false;
  for (const token of new MarkdownIt({ html: true }).parse(text, {})) {
    if (token.type === 'fence') {
      const line = (token.map?.[0] ?? 0) + 1;
      const language = token.info.trim().split(/\s+/)[0] ?? '';
      blocks.push({ document, line, language, text: token.content, words: wordsOf(before) });
    }
    if (token.type === 'code_block') {
      throw new Error(`${document}:${(token.map?.[0] ?? 0) + 1}: an indented block says nothing of its language`);
    }
    isItem = token.type === 'list_item_open';
    if (!isItem) before = token.type === 'html_block' ? token.content : '';
  }
  return blocks;
}

export interface Heading {
  readonly level: number;
  readonly text: string;
  /** What GitHub calls it in links. */
  readonly anchor: string;
}

/** Of inline Markdown what a reader sees. */
function plainText(children: readonly { readonly type: string; readonly content: string }[]): string {
  return children.map((one) => (one.type === 'text' || one.type === 'code_inline' ? one.content : '')).join('');
}

/** A letter, digit, hyphen or underscore stays, a space becomes a hyphen, all else goes; the second of a name gets `-1`. */
export function headingsOf(text: string): Heading[] {
  const seen = new Map<string, number>();
  const tokens = new MarkdownIt({ html: true }).parse(text, {});
  return tokens.flatMap((token, index) => {
    if (token.type !== 'heading_open') return [];
    const shown = plainText(tokens[index + 1]?.children ?? []);
    const base = shown
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-');
    const count = seen.get(base) ?? 0;
    seen.set(base, count + 1);
    return [{ level: Number(token.tag.slice(1)), text: shown, anchor: count === 0 ? base : `${base}-${count}` }];
  });
}

/** Targets of all links and pictures, in order. */
export function linksOf(text: string): string[] {
  const tokens = new MarkdownIt({ html: true }).parse(text, {});
  return tokens.flatMap((token) =>
    (token.children ?? []).flatMap((child) => {
      const target = child.attrGet(child.type === 'image' ? 'src' : 'href');
      return target === null ? [] : [decodeURI(String(target))];
    }),
  );
}
