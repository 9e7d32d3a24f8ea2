// Compiles the AssemblyScript kernels and writes them to where the loaders find them: for Node base64 in a TypeScript module, for
// browsers as they are.
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import asc from 'assemblyscript/asc';

const sources = ['kernels', 'blocks', 'topk', 'robust'].map((name) => `src/kernels/assembly/${name}.ts`);
const target = 'src/kernels/generated/kernels-wasm.ts';

const modified = async (path) => (await stat(path).catch(() => null))?.mtimeMs ?? 0;
const newest = Math.max(...(await Promise.all([...sources, 'scripts/build-kernels.mjs'].map(modified))));
const binary = 'src/kernels/generated/kernels.wasm';
if (Math.min(await modified(target), await modified(binary)) > newest) process.exit(0);

await mkdir('src/kernels/generated', { recursive: true });
const flags = ['--enable', 'simd', '--importMemory', '--runtime', 'stub', '-O3', '--noAssert', '--outFile', binary];
const { error, stderr } = await asc.main([...sources, ...flags]);
if (error !== null) {
  console.error(stderr.toString());
  throw error;
}
const base64 = (await readFile(binary)).toString('base64');
const lines = base64.match(/.{1,100}/g).map((line) => `  '${line}'`);
await writeFile(
  target,
  `/** Compiled from ${sources.join(', ')}. */\nexport const KERNELS_WASM: string = [\n${lines.join(',\n')},\n].join('');\n`,
);
