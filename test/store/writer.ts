/** Writes to a file store, as fast as it can, until it is killed; says what was acknowledged. */
import { fileStore } from '../../src/store/file.ts';

const store = await fileStore(process.argv[2]!);
const before = await store.get('count');
for (let count = Number(before?.value ?? 0) + 1; ; count++) {
  await store.commit(
    [],
    [
      { put: 'count', value: `${count}` },
      { put: 'ballast', value: 'x'.repeat(count % 5_000) },
    ],
  );
  process.stdout.write(`${count}\n`);
}
