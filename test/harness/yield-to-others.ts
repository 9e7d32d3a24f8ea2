/** Set-up of the patient tests, which compute and may run beside others: whoever waits for something in time goes before them. */
import { setPriority } from 'node:os';

/** On Linux half the share of whoever has not said so, and only where there is not enough for all. */
const NICENESS = 3;

// Of this thread, and of what it starts.
setPriority(NICENESS);
