/** The coordinator itself, as whoever looks on is shown it: plain data. */
export interface CoordinatorState {
  /** Whether peers may join it: it is the only one, or the one that leads. */
  readonly leads: boolean;
  /** Where the one is that leads, where several share a store and this one stands by; null: here, or nobody knows. */
  readonly leader: string | null;
  readonly term: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  /** Of peers and of those who are on their way to prove that they are. */
  readonly connections: number;
  readonly receivedMessages: number;
  readonly sentMessages: number;
}
