/** What a launched process is told through its environment. */

export interface LaunchedRun {
  readonly coordinator: string;
  readonly run: string;
  /** Left as the launcher's environment has it when undefined. */
  readonly token: string | undefined;
  readonly processes: number;
  readonly minWorldSize: number;
}

/** The name of process `index`, in output and messages. */
export function peerName(index: number): string {
  return `peer ${index}`;
}

/** `join()` reads the first three; the others are for the training script. */
export function launchEnvironment(run: LaunchedRun, index: number, restarts: number): Record<string, string> {
  const variables: Record<string, string> = {
    SKEIN_COORDINATOR: run.coordinator,
    SKEIN_RUN: run.run,
    SKEIN_LOCAL_RANK: String(index),
    SKEIN_WORLD_SIZE: String(run.processes),
    SKEIN_MIN_WORLD_SIZE: String(run.minWorldSize),
    SKEIN_RESTARTS: String(restarts),
  };
  if (run.token !== undefined) variables['SKEIN_TOKEN'] = run.token;
  return variables;
}
