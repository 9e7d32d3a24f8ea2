/**
 * Candidates on a store that several share, in virtual time: calls take their time and get lost on either way, processes are
 * stopped and go on, are killed and started again, and are cut off from the store. Whoever leads writes one epoch after the other,
 * and says it when it is stored.
 */
import { setMaxListeners } from 'node:events';
import { Candidacy } from '../../src/engine/candidacy.ts';
import { type Ledger, NotLeader } from '../../src/engine/ledger.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import { StoreError } from '../../src/store/store.ts';
import { VirtualClock } from '../../src/transport/clock.ts';
import { SimProcess } from '../sim/process.ts';
import { Random } from '../sim/random.ts';
import { FarStore, type Weather } from './far-store.ts';

const RUN = 'lm';
const LEASE_MS = 1_000;
const STORM_MS = 20_000;
/** By then somebody must lead again: a lease that nobody renews, and what is under way (ms). */
const CALM_MS = 6_000;
const CALM: Weather = { longestMs: 2, lost: 0 };

export interface Result {
  readonly failure: string | null;
  readonly trace: readonly string[];
  /** How often somebody began to lead. */
  readonly terms: number;
  readonly said: number;
  /** Writes that the store refused. */
  readonly refused: number;
}

interface Node {
  readonly name: string;
  readonly process: SimProcess;
  readonly store: FarStore;
  readonly candidacy: Candidacy;
}

class Model {
  readonly #world = new VirtualClock();
  readonly #store = new MemoryStore(this.#world, true);
  readonly #random: Random;
  readonly #nodes: Node[] = [];
  readonly #trace: string[] = [];
  readonly #weather: Weather;
  #failure: string | null = null;
  #started = 0;
  #isCalm = false;
  #saidEpoch = 0;
  #saidTerm = 0;
  #said = 0;
  #terms = 0;
  #refused = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.#weather = {
      longestMs: this.#random.pick([2, 20, 200, 2_000]),
      lost: this.#random.pick([0, 0.02, 0.2]),
    };
  }

  async run(): Promise<Result> {
    const count = this.#random.integer(2, 4);
    for (let index = 0; index < count; index++) this.#start();
    this.#plan();
    await this.#until(STORM_MS);
    this.#isCalm = true;
    for (const { process, store } of this.#nodes) {
      store.isCut = false;
      store.weather = CALM;
      process.goOn();
    }
    const before = this.#said;
    await this.#until(STORM_MS + CALM_MS);
    if (this.#said === before) this.#fail('nobody leads, long after the last fault');
    const { length } = this.#nodes.filter(({ candidacy, process }) => !process.dead && candidacy.mayLead);
    if (length !== 1) this.#fail(`${length} lead in calm weather`);
    for (const { candidacy } of this.#nodes) {
      if (candidacy.mayLead && candidacy.leader !== null) this.#fail('who leads names another one');
      void candidacy.close();
      if (candidacy.mayLead) this.#fail('one that has resigned leads');
    }
    return {
      failure: this.#failure,
      trace: this.#trace,
      terms: this.#terms,
      said: this.#said,
      refused: this.#refused,
    };
  }

  async #until(ms: number): Promise<void> {
    while (this.#world.now() < ms && this.#failure === null && this.#world.step()) {
      await new Promise((resolve) => setImmediate(resolve));
      this.#look();
    }
  }

  #look(): void {
    const leading = this.#nodes.filter(
      ({ process, candidacy }) => !process.dead && !process.stopped && candidacy.mayLead,
    );
    if (leading.length > 1) this.#fail(`${leading.map(({ name }) => name).join(' and ')} lead at once`);
  }

  #fail(text: string): void {
    this.#failure ??= text;
    this.#note(`FAILED ${text}`);
  }

  #note(text: string): void {
    this.#trace.push(`${this.#world.now().toFixed(1).padStart(9)}  ${text}`);
  }

  #start(): void {
    this.#started += 1;
    const name = `c${this.#started}`;
    const process = new SimProcess(name, this.#world);
    const weather = this.#isCalm ? CALM : this.#weather;
    const store = new FarStore(this.#store, process, this.#world, this.#random, weather);
    const abortController = () => {
      const controller = new AbortController();
      setMaxListeners(0, controller.signal);
      return controller;
    };
    const options = {
      id: name,
      address: `tcp://${name}:7400`,
      leaseMs: LEASE_MS,
      clock: process.clock,
      abortController,
    };
    const node: Node = {
      name,
      process,
      store,
      candidacy: new Candidacy(store, options, {
        onLead: (ledger) => void this.#lead(node, ledger),
        onYield: (reason) => this.#note(`${name} yields: ${reason}`),
        onFollow: (leader) => this.#note(`${name} follows ${leader.id}`),
        onTrouble: () => {},
      }),
    };
    this.#nodes.push(node);
  }

  /** What the server does: one write after the other, each said when it is stored and may still be said. */
  async #lead(node: Node, ledger: Ledger): Promise<void> {
    const { term } = ledger;
    this.#terms += 1;
    const { epoch: stored = 0, term: storedTerm = 0 } = ledger.load(RUN) ?? {};
    this.#note(`${node.name} leads, term ${term}, from epoch ${stored}`);
    if (stored < this.#saidEpoch) this.#fail(`${node.name} knows of epoch ${stored}, and ${this.#saidEpoch} was said`);
    if (term <= this.#saidTerm || storedTerm >= term)
      this.#fail(`${node.name} leads in term ${term}, after ${this.#saidTerm}`);
    for (let epoch = stored + 1; node.candidacy.mayLead && this.#failure === null; epoch++) {
      if (!(await this.#write(node, ledger, epoch))) return;
      if (node.process.stopped || !node.candidacy.mayLead) return;
      if (epoch <= this.#saidEpoch)
        this.#fail(`${node.name} says epoch ${epoch}, and ${this.#saidEpoch} was said before`);
      if (term < this.#saidTerm)
        this.#fail(`${node.name} speaks in term ${term}, and ${this.#saidTerm} was heard before`);
      this.#saidEpoch = epoch;
      this.#saidTerm = term;
      this.#said += 1;
      await node.process.sleep(this.#random.next() * 100);
    }
  }

  async #write(node: Node, ledger: Ledger, epoch: number): Promise<boolean> {
    while (node.candidacy.mayLead) {
      try {
        await ledger.saveRun(RUN, { term: ledger.term, epoch, members: [] });
        return true;
      } catch (error) {
        if (error instanceof NotLeader) {
          this.#refused += 1;
          node.candidacy.onRefused();
          return false;
        }
        if (!(error instanceof StoreError)) throw error;
      }
      await node.process.sleep(20);
    }
    return false;
  }

  /** Faults, at any time in the storm; each ends, at the latest with the storm. */
  #plan(): void {
    const count = this.#random.integer(1, 12);
    for (let index = 0; index < count; index++) {
      const at = this.#random.next() * STORM_MS;
      const lasts = 10 + this.#random.next() ** 2 * 8_000;
      const kind = this.#random.pick(['stop', 'kill', 'cut', 'jump'] as const);
      const prefersLeader = this.#random.chance(0.7);
      this.#world.schedule(at, () => this.#inflict(kind, lasts, prefersLeader));
    }
  }

  #inflict(kind: 'stop' | 'kill' | 'cut' | 'jump', lasts: number, prefersLeader: boolean): void {
    const alive = this.#nodes.filter(({ process }) => !process.dead && !process.stopped);
    const leader = alive.find(({ candidacy }) => candidacy.mayLead);
    const node =
      prefersLeader && leader !== undefined ? leader : alive[this.#random.integer(0, Math.max(0, alive.length - 1))];
    if (node === undefined) return;
    this.#note(`${kind} ${node.name} for ${lasts.toFixed(0)} ms`);
    const { process, store } = node;
    if (kind === 'stop') {
      process.stop();
      this.#world.schedule(lasts, () => process.goOn());
    } else if (kind === 'kill') {
      process.kill();
      this.#world.schedule(Math.max(0, Math.min(lasts, STORM_MS - this.#world.now())), () => this.#start());
    } else if (kind === 'cut') {
      store.isCut = true;
      this.#world.schedule(lasts, () => {
        store.isCut = false;
      });
    } else {
      process.jump(lasts);
    }
  }
}

export function runModel(seed: number): Promise<Result> {
  return new Model(seed).run();
}
