/**
 * What it costs to send: the figures of the model by which `auto` chooses (collectives/select.ts). All ranks must choose by the same
 * ones. What a processor takes is a constant of this release; what ways are worth, and how many members share a processor, comes to a peer as a
 * fact of its view, which the coordinator has given to all of its members (membership/calibration.ts).
 */

/** What ways between members are worth, whatever their processors do. */
export interface WayFigures {
  /** From one member to another, one way; a figure that is less than what processors take for a hop says nothing. */
  readonly hopSeconds: number;
  /** For a byte: 1 / rate. The same holds. */
  readonly byteSeconds: number;
}

/** What a view says of its members. Plain data, so that it can be agreed and handed on. */
export interface WayCosts {
  /** The slowest way within a site. */
  readonly near: WayFigures;
  /** The slowest way between sites. */
  readonly far: WayFigures;
  /** Hops of the ring: their mean delay, and the rate of the slowest; null: they were not all measured, so they are like others. */
  readonly ring: WayFigures | null;
  /** Members for each processor of the host where they are most crowded. */
  readonly sharing: number;
}

/** Between processes on one host there is nothing but processors. */
export const NO_WAY: WayFigures = { hopSeconds: 0, byteSeconds: 0 };

/** As long as nothing was measured: between sites a good line of 1 Gbit/s over 20 ms there and back. */
export const UNMEASURED: WayCosts = {
  near: NO_WAY,
  far: { hopSeconds: 10e-3, byteSeconds: 8e-9 },
  ring: null,
  sharing: 1,
};

/** What one processor takes. */
export interface ProcessorFigures {
  /** For a call, whatever its program: to be announced, decided, and told. */
  readonly callSeconds: number;
  /** α: from a send to the receiver's next instruction, between threads of one host. */
  readonly hopSeconds: number;
  /** μ: for a message out of one rank and into another. */
  readonly messageSeconds: number;
  /** β: for a byte out of one rank and into another. */
  readonly byteSeconds: number;
  /** γ: for a byte (of f32) accumulated, with the copies to and from the caller's tensors. */
  readonly reduceByteSeconds: number;
  /** κ: how much more a byte takes for each further rank from which a rank receives at the same time, as segments wait for one another outside of the cache. */
  readonly crowding: number;
}

/** Measured between processes on one host (`npm run bench:algorithms -- --fit` gives the figures to set here). */
export const PROCESSOR: ProcessorFigures = {
  callSeconds: 1.1e-3,
  hopSeconds: 21e-6,
  messageSeconds: 47e-6,
  byteSeconds: 0.365e-9,
  reduceByteSeconds: 0.54e-9,
  crowding: 0.1,
};
