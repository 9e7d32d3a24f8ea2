/** The drawing of members and links. */

import { milliseconds, rate, shortName } from '../eyes/format.ts';
import type { LinkState, MemberState, RunState } from '../eyes/run-state.ts';
import type { Happening } from '../eyes/timeline.ts';
import { Keyed, setAttributes, setText, svg } from './dom.ts';
import { type Layout, type Point, ringLayout, type Shape, treeLayout } from './layout.ts';
import { type Sites, siteName } from './sites.ts';

/** Worlds beyond which names are left out, and moving lines, and figures on links. */
const MOST_NAMED = 48;
const MOST_MOVING = 24;
const MOST_FIGURED = 12;

/** Links besides those of the shape that are drawn: the ones that carry most. */
const MOST_CHORDS = 160;

/** Less than this is no data (bytes per second). */
const FLOWING = 4_096;

/** How long a lost peer stays where it stood (ms). */
const GHOST_MS = 8_000;

/** Waits shorter than this are not drawn (ms). */
const LAG_MS = 50;

interface Ghost {
  readonly peerId: string;
  readonly at: number;
  readonly place: Point;
}

/** A wide line for a fast link: from 1.5 at nothing to 8 at tens of gigabytes. */
function widthOf(bytesPerSecond: number): number {
  return bytesPerSecond < FLOWING ? 1.5 : Math.min(8, 1.5 + 0.9 * Math.log10(bytesPerSecond / FLOWING));
}

export class Topology {
  readonly #canvas: SVGSVGElement;
  readonly #sites: Sites;
  readonly #cuts: Keyed<SVGGElement> = new Keyed(() => makeCut());
  readonly #links: Keyed<SVGGElement> = new Keyed(() => makeLink());
  readonly #nodes: Keyed<SVGGElement> = new Keyed(() => makeNode());
  readonly #ghostMarks: Keyed<SVGGElement> = new Keyed(() => makeGhost());
  readonly #layers: Readonly<Record<'links' | 'cuts' | 'ghosts' | 'nodes', SVGGElement>>;
  readonly #centre: SVGTextElement = svg('text', { class: 'centre', y: -4 });
  readonly #under: SVGTextElement = svg('text', { class: 'under', y: 24 });
  #shape: Shape = 'ring';
  #layout: Layout = { places: new Map(), edges: [], radius: null };
  #ghosts: Ghost[] = [];
  /** Last happening that was looked at. */
  #seen = 0;
  #run: string | null = null;

  constructor(canvas: SVGSVGElement, sites: Sites) {
    this.#canvas = canvas;
    this.#sites = sites;
    this.#layers = { links: svg('g'), cuts: svg('g'), ghosts: svg('g'), nodes: svg('g') };
    const { links, cuts, ghosts, nodes } = this.#layers;
    canvas.replaceChildren(links, cuts, ghosts, nodes, this.#centre, this.#under);
  }

  set shape(shape: Shape) {
    this.#shape = shape;
    this.#ghosts = [];
  }

  /** @param chosen the peer whose row is pointed at; null: none */
  show(state: RunState | null, happenings: readonly Happening[], chosen: string | null): void {
    const members = state?.members ?? [];
    const ids = members.map(({ peerId }) => peerId);
    const ring = state?.ring.length === ids.length ? state.ring : ids;
    this.#bury(state, happenings);
    this.#layout = this.#shape === 'ring' ? ringLayout(ring) : treeLayout(ids, this.#shape === 'tree-0' ? 0 : 1);
    this.#showLinks(state, chosen);
    this.#showCuts(state);
    this.#showNodes(members, chosen);
    this.#showGhosts();
    const isRing = this.#layout.radius !== null;
    setText(this.#centre, !isRing ? '' : members.length === 0 ? 'Nobody yet' : String(members.length));
    setText(this.#under, !isRing || members.length === 0 ? '' : members.length === 1 ? 'member' : 'members');
    this.#canvas.classList.toggle('still', members.length > MOST_MOVING);
    this.#canvas.classList.toggle('chosen', chosen !== null);
    const slow = members.filter((member) => member.slow).map(({ peerId }) => peerId);
    const text = `${members.length} members${slow.length > 0 ? `, slow: ${slow.join(', ')}` : ''}, ${state?.cuts.length ?? 0} cuts`;
    setAttributes(this.#canvas, { 'aria-label': text });
  }

  /** Members that were lost stay for a while, where they were. */
  #bury(state: RunState | null, happenings: readonly Happening[]): void {
    const isOther = this.#run !== (state?.run ?? null);
    this.#run = state?.run ?? null;
    if (isOther) this.#ghosts = [];
    for (const { number, kind, peerId } of happenings) {
      if (number <= this.#seen || isOther || kind !== 'loss' || peerId === null) continue;
      const place = this.#layout.places.get(peerId);
      if (place !== undefined) this.#ghosts.push({ peerId, at: performance.now(), place });
    }
    this.#seen = happenings.at(-1)?.number ?? 0;
    this.#ghosts = this.#ghosts.filter(({ at }) => performance.now() - at < GHOST_MS);
  }

  #showLinks(state: RunState | null, chosen: string | null): void {
    const { edges, places } = this.#layout;
    const known = new Map((state?.links ?? []).map((link) => [`${link.from} ${link.to}`, link]));
    const isEdge = new Set(edges.map(({ from, to }) => `${from} ${to}`));
    const chords = [...known.values()]
      .filter(({ from, to, sentPerSecond }) => !isEdge.has(`${from} ${to}`) && (sentPerSecond ?? 0) >= FLOWING)
      .sort((left, right) => (right.sentPerSecond ?? 0) - (left.sentPerSecond ?? 0))
      .slice(0, MOST_CHORDS);
    const keys: string[] = [];
    const draw = (from: string, to: string, link: LinkState | undefined, isChord: boolean) => {
      const [start, end] = [places.get(from), places.get(to)];
      if (start === undefined || end === undefined) return;
      const key = `${from} ${to}`;
      keys.push(key);
      const isFigured = !isChord && places.size <= MOST_FIGURED;
      const isMine = chosen !== null && (from === chosen || to === chosen);
      this.#drawLink(this.#links.get(key), { start, end, link, isChord, isFigured, isMine });
    };
    for (const { from, to, sentPerSecond } of chords)
      draw(from, to, known.get(`${from} ${to}`), (sentPerSecond ?? 0) > 0);
    // In a tree data goes both ways; what goes up is the edge, what comes down a chord beside it.
    for (const { from, to } of edges) draw(from, to, known.get(`${from} ${to}`), false);
    this.#links.show(this.#layers.links, keys);
  }

  #drawLink(
    group: SVGGElement,
    how: {
      readonly start: Point;
      readonly end: Point;
      readonly link: LinkState | undefined;
      readonly isChord: boolean;
      readonly isFigured: boolean;
      readonly isMine: boolean;
    },
  ): void {
    const { start, end, link, isChord, isFigured, isMine } = how;
    const [line, stream, figure, title] = group.children as unknown as [Element, Element, Element, Element]; // makeLink
    const { radius } = this.#layout;
    const path = isChord || radius === null ? bent(start, end, isChord) : arc(start, end, radius);
    const flow = link?.sentPerSecond ?? 0;
    const isFlowing = flow >= FLOWING;
    const width = isChord ? Math.max(1, widthOf(flow) / 2) : widthOf(flow);
    setAttributes(group, {
      class: `link${isChord ? ' chord' : ''}${isFlowing ? ' flowing' : ''}${isMine ? ' mine' : ''}`,
    });
    setAttributes(line, { d: path, 'stroke-width': width });
    setAttributes(stream, { d: isFlowing ? path : '', 'stroke-width': Math.max(1, width / 2.4) });
    const middle = labelPlace(start, end, radius);
    setAttributes(figure, { x: middle.x, y: middle.y });
    const measured = link?.bytesPerSecond ?? null;
    setText(figure, !isFigured ? '' : isFlowing ? rate(flow) : measured === null ? '' : `≤ ${rate(measured)}`);
    const capacity = measured === null ? '' : `, measured ${rate(measured)}`;
    const delay = link?.delayMs == null ? '' : `, ${milliseconds(link.delayMs)} one way`;
    const path_ = link?.path == null ? '' : ` by ${link.path}`;
    setText(
      title,
      link === undefined ? 'not told' : `${link.from} → ${link.to}${path_}: ${rate(flow)} now${capacity}${delay}`,
    );
  }

  #showCuts(state: RunState | null): void {
    const { places } = this.#layout;
    const keys: string[] = [];
    for (const { between, through } of state?.cuts ?? []) {
      const [one, other] = between.map((peerId) => places.get(peerId));
      if (one === undefined || other === undefined) continue;
      const key = between.join(' ');
      keys.push(key);
      const group = this.#cuts.get(key);
      const [line, cross, way, title] = group.children as unknown as [Element, Element, Element, Element]; // makeCut
      const middle = { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 };
      setAttributes(line, { d: `M${at(one)}L${at(other)}` });
      setAttributes(cross, { transform: `translate(${at(middle)})` });
      const stops = through.flatMap((peerId) => places.get(peerId) ?? []);
      setAttributes(way, { d: stops.length === 0 ? '' : `M${[one, ...stops, other].map(at).join('L')}` });
      const round = through.length === 0 ? 'and nobody is between them' : `and go through ${through.join(', ')}`;
      setText(title, `${between.join(' and ')} can't reach one another, ${round}`);
    }
    this.#cuts.show(this.#layers.cuts, keys);
  }

  #showNodes(members: readonly MemberState[], chosen: string | null): void {
    const { places, radius } = this.#layout;
    const size = members.length <= 12 ? 15 : members.length <= 24 ? 11 : members.length <= MOST_NAMED ? 8 : 5;
    const keys: string[] = [];
    for (const member of members) {
      const place = places.get(member.peerId);
      if (place === undefined) continue;
      keys.push(member.peerId);
      const group = this.#nodes.get(member.peerId);
      const [halo, body, name, title] = group.children as unknown as [Element, Element, Element, Element]; // makeNode
      const isAway = member.path === null;
      const isChosen = member.peerId === chosen;
      setAttributes(group, {
        class: `node ${this.#sites.classOf(member.site)}${member.slow ? ' slow' : ''}${isAway ? ' away' : ''}${isChosen ? ' mine' : ''}`,
        transform: `translate(${at(place)})`,
        'data-peer': member.peerId,
      });
      const lag = member.lagMs < LAG_MS ? 0 : 4 + 10 * Math.min(1, member.lagMs / 1_000);
      setAttributes(halo, { r: size + lag });
      setAttributes(body, { r: size });
      const isNamed = members.length <= MOST_NAMED || member.slow || isChosen;
      const away = size + Math.max(lag, member.slow ? 3 : 0) + 9;
      const [x, y] = radius === null ? [0, -1] : [place.x / radius, place.y / radius];
      const anchor = Math.abs(x) < 0.25 ? 'middle' : x > 0 ? 'start' : 'end';
      setAttributes(name, { x: x * away, y: y * (away + 3), 'text-anchor': anchor });
      setText(name, isNamed ? shortName(member.peerId) : '');
      const lags = member.lagMs < LAG_MS ? '' : `, others waited ${milliseconds(member.lagMs)} for it`;
      const slow = member.slow ? ', holds the others up' : '';
      setText(
        title,
        `${member.peerId}, rank ${member.rank}, ${siteName(member.site)}, sends ${rate(member.sentPerSecond)}${lags}${slow}`,
      );
    }
    this.#nodes.show(this.#layers.nodes, keys);
  }

  #showGhosts(): void {
    for (const { peerId, place } of this.#ghosts) {
      const group = this.#ghostMarks.get(peerId);
      setAttributes(group, { transform: `translate(${at(place)})`, 'data-peer': peerId });
      const [, , name] = group.children as unknown as [Element, Element, Element]; // makeGhost
      setAttributes(name, { x: place.x === 0 ? 0 : Math.sign(place.x) * 30, y: place.y > 0 ? 30 : -24 });
      setText(name, `${shortName(peerId)} lost`);
    }
    this.#ghostMarks.show(
      this.#layers.ghosts,
      this.#ghosts.map(({ peerId }) => peerId),
    );
  }
}

function at({ x, y }: Point): string {
  return `${x.toFixed(1)},${y.toFixed(1)}`;
}

/** Along the circle, clockwise. */
function arc(start: Point, end: Point, radius: number): string {
  return `M${at(start)}A${radius},${radius} 0 0 1 ${at(end)}`;
}

/** Straight, or bent towards the middle so that both directions can be told apart. */
function bent(start: Point, end: Point, isBent: boolean): string {
  if (!isBent) return `M${at(start)}L${at(end)}`;
  const [x, y] = [(start.x + end.x) / 2, (start.y + end.y) / 2];
  const aside = { x: 0.3 * x + 0.08 * (end.y - start.y), y: 0.3 * y - 0.08 * (end.x - start.x) };
  return `M${at(start)}Q${at(aside)} ${at(end)}`;
}

function labelPlace(start: Point, end: Point, radius: number | null): Point {
  const [x, y] = [(start.x + end.x) / 2, (start.y + end.y) / 2];
  if (radius === null) return { x, y };
  // In the middle of the arc, clockwise from its start, and inside.
  const [from, to] = [Math.atan2(start.y, start.x), Math.atan2(end.y, end.x)];
  const half = (to > from ? to - from : to - from + 2 * Math.PI) / 2;
  return { x: (radius - 44) * Math.cos(from + half), y: (radius - 30) * Math.sin(from + half) };
}

function makeLink(): SVGGElement {
  const group = svg('g');
  group.append(
    svg('path', { class: 'line' }),
    svg('path', { class: 'stream' }),
    svg('text', { class: 'figure' }),
    svg('title'),
  );
  return group;
}

function makeCut(): SVGGElement {
  const group = svg('g', { class: 'cut' });
  group.append(
    svg('path', { class: 'line' }),
    svg('path', { class: 'cross', d: 'M-7,-7L7,7M-7,7L7,-7' }),
    svg('path', { class: 'way' }),
    svg('title'),
  );
  return group;
}

function makeNode(): SVGGElement {
  const group = svg('g');
  group.append(
    svg('circle', { class: 'halo' }),
    svg('circle', { class: 'body' }),
    svg('text', { class: 'name' }),
    svg('title'),
  );
  return group;
}

function makeGhost(): SVGGElement {
  const group = svg('g', { class: 'ghost' });
  group.append(svg('circle', { r: 13 }), svg('path', { d: 'M-6,-6L6,6M-6,6L6,-6' }), svg('text', { class: 'name' }));
  return group;
}
