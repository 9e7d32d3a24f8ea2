/** The network of a run of chaos, and the faults in it. Several may disturb one peer at the same time. */
import { Namespaces } from './namespaces.ts';
import type { PacketCounts } from './packets.ts';
import { disturbanceOf, type Fault } from './plan.ts';
import { Relay } from './relay.ts';

type NetworkFault = Extract<Fault, { kind: 'partition' | 'slow' | 'loss' | 'delay' | 'reorder' | 'corrupt' }>;

interface NetworkOptions {
  readonly peers: number;
  /** Whether packets can be delayed, overtaken and damaged. */
  readonly relay: boolean;
  readonly seed: number;
  /** Called when the relay ends by itself. */
  readonly onFailure: (error: Error) => void;
}

export class Network {
  readonly namespaces: Namespaces;
  readonly #relay: Relay | null;
  readonly #faults: Set<NetworkFault> = new Set();

  static async open({ peers, relay, seed, onFailure }: NetworkOptions): Promise<Network> {
    const namespaces = new Namespaces(peers);
    try {
      return new Network(namespaces, relay ? await Relay.start(namespaces, seed, onFailure) : null);
    } catch (error) {
      namespaces.remove();
      throw error;
    }
  }

  private constructor(namespaces: Namespaces, relay: Relay | null) {
    this.namespaces = namespaces;
    this.#relay = relay;
  }

  begin(fault: NetworkFault): void {
    this.#faults.add(fault);
    this.#conform(fault);
  }

  end(fault: NetworkFault): void {
    this.#faults.delete(fault);
    this.#conform(fault);
  }

  /** Makes the victim's network what all its present faults of this kind ask for. */
  #conform({ victim, kind }: NetworkFault): void {
    const faults = [...this.#faults].filter((fault) => fault.victim === victim);
    switch (kind) {
      case 'partition':
      case 'loss':
        this.namespaces.heal(victim);
        for (const fault of faults) {
          if (fault.kind === 'partition') this.namespaces.drop(victim, fault.others);
          if (fault.kind === 'loss') this.namespaces.lose(victim, fault.percent);
        }
        break;
      case 'slow': {
        const rates = faults.flatMap((fault) => (fault.kind === 'slow' ? [fault.megabits] : []));
        this.namespaces.shape(victim, rates.length === 0 ? null : Math.min(...rates));
        break;
      }
      case 'delay':
      case 'reorder':
      case 'corrupt':
        this.#relay?.disturb(victim, disturbanceOf(faults));
        break;
      default:
        kind satisfies never;
    }
  }

  /** Removes all of it; what the relay did, or null. May be called twice. */
  async close(): Promise<PacketCounts | null> {
    const counts = (await this.#relay?.close()) ?? null;
    this.namespaces.remove();
    return counts;
  }
}
