/** A colour for each site: the same as long as the page is open, and as different as eight can be. */

const COLOURS = 8;

export class Sites {
  readonly #numbers: Map<string, number> = new Map();

  /** The class by which the style sheet colours what belongs to a site. */
  classOf(site: string): string {
    let number = this.#numbers.get(site);
    if (number === undefined) {
      number = this.#numbers.size;
      this.#numbers.set(site, number);
    }
    return `site-${number % COLOURS}`;
  }
}

/** What a site is called where its peers have not named it. */
export function siteName(site: string): string {
  return site === '' ? 'no site' : site;
}
