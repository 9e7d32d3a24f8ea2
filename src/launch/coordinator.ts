/** Starts the coordinator that belongs to one launch, on a free port of the loopback interface. */
import { Worker } from 'node:worker_threads';

export interface LaunchCoordinator {
  readonly address: string;
  /** The peers have ended by now, so there is nobody to take leave of. */
  close(): Promise<void>;
}

/** @param onFailure called when it stops by itself, which the run does not survive */
export function startCoordinator(token: string, onFailure: (error: Error) => void): Promise<LaunchCoordinator> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./coordinator-worker.js', import.meta.url), { workerData: { token } });
    let phase: 'starting' | 'serving' | 'closing' = 'starting';
    const fail = (error: Error): void => {
      if (phase === 'starting') reject(error);
      if (phase === 'serving') onFailure(error);
      phase = 'closing';
    };
    const close = async (): Promise<void> => {
      phase = 'closing';
      await worker.terminate();
    };
    worker.once('error', fail);
    worker.once('exit', () => fail(new Error('The coordinator of this launch has stopped.')));
    worker.once('message', (address: string) => {
      phase = 'serving';
      resolve({ address, close });
    });
  });
}
