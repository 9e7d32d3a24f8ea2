/** Skein: collective communication that survives its peers. See README.md for a first run, ARCHITECTURE.md for the map. */
export type { Consistency, ContributedRange, PeerId, Recovery, Report, StragglerPolicy } from './collectives/call.ts';
export type { Codec, Rounding } from './collectives/codec.ts';
export type {
  Algorithm,
  AlgorithmLabel,
  CollectiveKind,
  Instruction,
  ProgramLabel,
  Rank,
} from './collectives/program.ts';
export { defineProgram, type Program, type ProgramTable } from './collectives/user-program.ts';
export { Coordinator } from './coordinator.ts';
export { diagnose, type Examination, examine } from './diagnose.ts';
export type { CoordinatorListenOptions } from './engine/coordinator-options.ts';
export type { CoordinatorHttpOptions } from './engine/http-server.ts';
export type { IceServerOptions } from './engine/ice.ts';
export type { PathFailure, PathKind } from './engine/path-race.ts';
export type { Admission, LinkStatus } from './engine/runtime-data.ts';
export type { Encryption } from './engine/security.ts';
export { makePass, type PassOptions, type Role } from './engine/token.ts';
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
} from './errors.ts';
export type { GroupEvents, GroupMember } from './group/presence.ts';
export { Group, type GroupStatus, type Step, type StepsOptions } from './group.ts';
export { join } from './join.ts';
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
} from './options.ts';
export type { SnapshotOptions, SnapshotReport } from './snapshot/keeper.ts';
export { SnapshotError } from './snapshot/snapshot.ts';
export type { StateStatus } from './state/asks.ts';
export type { SharedEntry, SharedState } from './state/memory.ts';
export type { SyncStrategy } from './state/strategy.ts';
export type { SyncReport } from './state/sync.ts';
export type { EtcdAccess } from './store/etcd-access.ts';
export type { Change, Entry, Guard, Lease, Store } from './store/store.ts';
export type { AllReduceStream, ReducedRange } from './stream.ts';
export {
  type Dtype,
  type HalfTensor,
  type PlainTensor,
  type ReduceOp,
  type RobustOp,
  type SingleTensor,
  sharedTensor,
  type Tensor,
} from './tensor.ts';
export type { FlightCall, FlightDump, FlightLink, FlightNeighbour } from './wire/flight.ts';
