/** The page's elements, found and made. */

const SVG = 'http://www.w3.org/2000/svg';

/** @throws when the page has no such element: then page and script are not of the same build */
export function find<E extends Element = HTMLElement>(id: string): E {
  const element = document.querySelector<E>(`#${id}`);
  if (element === null) throw new Error(`The page has no #${id}.`);
  return element;
}

/** Text is only touched where it differs: else a screen reader would be told again, and the browser lay it out again. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttributes(element: Element, attributes: Readonly<Record<string, string | number | null>>): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
  }
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | number | null>> = {},
): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  setAttributes(element, attributes);
  return element;
}

/** Elements by what they stand for: made when they first come, and gone when they are not named any more. */
export class Keyed<E extends Element> {
  readonly #elements: Map<string, E> = new Map();
  readonly #make: (key: string) => E;

  constructor(make: (key: string) => E) {
    this.#make = make;
  }

  get(key: string): E {
    let element = this.#elements.get(key);
    if (element === undefined) {
      element = this.#make(key);
      this.#elements.set(key, element);
    }
    return element;
  }

  /** Puts those of these keys into `parent` in this order, and forgets all others. */
  show(parent: Element, keys: readonly string[]): void {
    const wanted = new Set(keys);
    for (const [key, element] of this.#elements) {
      if (wanted.has(key)) continue;
      element.remove();
      this.#elements.delete(key);
    }
    for (const [at, key] of keys.entries()) {
      const element = this.get(key);
      // Where it stands already it stays: to move it would take the focus away.
      if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] ?? null);
    }
  }
}
