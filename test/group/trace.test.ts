/** Spans of collectives, as OpenTelemetry's own SDK records them. */
import { context, type Span, SpanStatusCode, trace } from '@opentelemetry/api';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { afterAll, expect, test } from 'vitest';
import { Members } from './members.ts';

/** As much of a context manager as a test without time-outs needs. */
class OneContext {
  #active: ReturnType<typeof context.active> | null = null;
  active() {
    return this.#active ?? (ROOT as ReturnType<typeof context.active>);
  }
  with(
    wanted: ReturnType<typeof context.active>,
    body: (...args: never[]) => unknown,
    self?: unknown,
    ...args: never[]
  ) {
    const before = this.#active;
    this.#active = wanted;
    try {
      return body.call(self, ...args);
    } finally {
      this.#active = before;
    }
  }
  bind(_: unknown, target: unknown) {
    return target;
  }
  enable() {
    return this;
  }
  disable() {
    return this;
  }
}

const ROOT = context.active();

afterAll(() => {
  trace.disable();
  context.disable();
});

test('before an SDK is there nothing is recorded; then each call is a span of who makes it, with what came of it', async () => {
  await using members = await Members.form(2, { engine: 'inline' });
  const call = (count: number) =>
    members.all((group) => group.allReduce(new Float32Array(count), { tag: 'grad', op: 'avg' }));
  await call(4);

  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  expect(trace.setGlobalTracerProvider(provider)).toBe(true);
  expect(context.setGlobalContextManager(new OneContext() as never)).toBe(true);

  const parents: Span[] = [];
  const reports = await members.all((group) => {
    const parent = trace.getTracer('a user').startSpan('step');
    parents.push(parent);
    return context.with(trace.setSpan(ROOT, parent), () =>
      group.allReduce(new Float32Array(100), { tag: 'grad', op: 'avg', codec: 'bf16' }),
    );
  });
  const done = exporter.getFinishedSpans();
  expect(done.map(({ name }) => name)).toEqual(['skein.allReduce', 'skein.allReduce']);
  expect(done.map(({ parentSpanContext }) => parentSpanContext?.spanId).sort()).toEqual(
    parents.map((parent) => parent.spanContext().spanId).sort(),
  );
  expect(done[0]!.status.code).toBe(SpanStatusCode.OK);
  const [{ id, epoch, algorithm }] = reports as [(typeof reports)[0]];
  expect(done[0]!.attributes).toMatchObject({
    'skein.collective': 'allReduce',
    'skein.tag': 'grad',
    'skein.op': 'avg',
    'skein.dtype': 'f32',
    'skein.codec': 'bf16',
    'skein.bytes': 400,
    'skein.id': id,
    'skein.epoch': epoch,
    'skein.world_size': 2,
    'skein.algorithm': algorithm,
    'skein.retries': 0,
  });

  exporter.reset();
  await expect(
    members.all((group, rank) => group.allReduce(new Float32Array(8 + rank), { tag: 'wrong' })),
  ).rejects.toMatchObject({ code: 'SKEIN_MISMATCH' });
  await expect.poll(() => exporter.getFinishedSpans().length).toBe(2);
  for (const { status, events, attributes } of exporter.getFinishedSpans()) {
    expect(status.code).toBe(SpanStatusCode.ERROR);
    expect(status.message).toContain('f32 × 8');
    expect(attributes['error.type']).toBe('SKEIN_MISMATCH');
    expect(events.map(({ name }) => name)).toEqual(['exception']);
  }
});
