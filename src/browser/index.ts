/** Skein in a browser: what `index.ts` gives, but for the coordinator, which needs a port to listen on. */
export type { Consistency, ContributedRange, PeerId, Recovery, Report, StragglerPolicy } from '../collectives/call.ts';
export type { Codec, Rounding } from '../collectives/codec.ts';
export type {
  Algorithm,
  AlgorithmLabel,
  CollectiveKind,
  Instruction,
  ProgramLabel,
  Rank,
} from '../collectives/program.ts';
export type { Program, ProgramTable } from '../collectives/user-program.ts';
export type { PathFailure, PathKind } from '../engine/path-race.ts';
export type { Admission, LinkStatus } from '../engine/runtime-data.ts';
export {
  ArgumentError,
  ClosedError,
  ConnectError,
  type ErrorContext,
  EvictedError,
  ExcludedError,
  MismatchError,
  PeerLostError,
  PoisonedInputError,
  ProtocolError,
  QuorumError,
  SkeinError,
  StateLostError,
  TimeoutError,
  UnauthorizedError,
  WithdrawnError,
} from '../errors.ts';
export type { GroupEvents, GroupMember } from '../group/presence.ts';
export { Group, type GroupStatus, type Step, type StepsOptions } from '../group.ts';
export type {
  AllReduceOptions,
  AllReduceStreamOptions,
  CallOptions,
  GuardOptions,
  JoinOptions,
  ReduceOptions,
  RootedReduceOptions,
  RootOptions,
  SyncOptions,
  TransferOptions,
} from '../options.ts';
export type { SnapshotOptions, SnapshotReport } from '../snapshot/keeper.ts';
export { SnapshotError } from '../snapshot/snapshot.ts';
export type { StateStatus } from '../state/asks.ts';
export type { SharedEntry, SharedState } from '../state/memory.ts';
export type { SyncStrategy } from '../state/strategy.ts';
export type { SyncReport } from '../state/sync.ts';
export type { AllReduceStream, ReducedRange } from '../stream.ts';
export {
  type Dtype,
  type HalfTensor,
  type PlainTensor,
  type ReduceOp,
  type RobustOp,
  type SingleTensor,
  sharedTensor,
  type Tensor,
} from '../tensor.ts';
export type { FlightCall, FlightDump, FlightLink, FlightNeighbour } from '../wire/flight.ts';
export { join } from './join.ts';
