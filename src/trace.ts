/**
 * OpenTelemetry spans for collectives, by its API alone: where the program has registered no SDK, nothing is recorded, and all that a call
 * pays is to find that out. A span is a child of what is active where the call is made.
 */
import { type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import type { Report } from './collectives/call.ts';
import type { CollectiveKind } from './collectives/program.ts';

/** A call, before it is made. */
export interface TracedCall {
  readonly kind: CollectiveKind;
  readonly tag: string;
  readonly dtype: string;
  readonly op: string | null;
  readonly codec: string;
  /** Of this peer's own tensor. */
  readonly bytes: number;
}

export interface CallSpan {
  done(report: Report): void;
  failed(error: unknown): void;
}

const tracer = trace.getTracer('skein');

/** Begins the span of a call; null where nobody records any. */
export function traceCall(describe: () => TracedCall): CallSpan | null {
  const span = tracer.startSpan('skein collective', { kind: SpanKind.INTERNAL });
  if (!span.isRecording()) return null;
  const { kind, tag, dtype, op, codec, bytes } = describe();
  span.updateName(`skein.${kind}`);
  span.setAttributes({
    'skein.collective': kind,
    'skein.tag': tag,
    'skein.dtype': dtype,
    'skein.codec': codec,
    'skein.bytes': bytes,
    ...(op === null ? {} : { 'skein.op': op }),
  });
  return { done: (report) => finish(span, report), failed: (error) => fail(span, error) };
}

function finish(span: Span, report: Report): void {
  span.setAttributes({
    'skein.id': report.id,
    'skein.epoch': report.epoch,
    'skein.world_size': report.worldSize,
    'skein.algorithm': report.algorithm,
    'skein.retries': report.retries,
    'skein.bytes_sent': report.bytesSent,
    'skein.bytes_received': report.bytesReceived,
  });
  span.setStatus({ code: SpanStatusCode.OK });
  span.end();
}

function fail(span: Span, error: unknown): void {
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown };
  span.recordException(error instanceof Error ? error : String(error));
  if (typeof code === 'string') span.setAttribute('error.type', code);
  span.setStatus({ code: SpanStatusCode.ERROR, message: String(message) });
  span.end();
}
