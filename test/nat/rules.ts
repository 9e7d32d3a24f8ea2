/** What each kind of box between a private network and the public one lets through, and how it translates: nftables' rules. */

export type BoxKind =
  /**
   * Keeps the port of each inner address as long as it is free, whoever it sends to, and lets in only answers: a
   * port-restricted cone, as most homes have.
   */
  | 'cone'
  /** A port of its own, drawn at random, for each address that it sends to: nobody can foretell it. */
  | 'symmetric'
  /** A firewall of those that let out nothing but TCP. */
  | 'tcp-only';

/** The box's devices. */
export const INNER_DEVICE = 'in';
export const OUTER_DEVICE = 'out';

const LETS_OUT: Readonly<Record<BoxKind, string>> = { cone: '', symmetric: '', 'tcp-only': 'meta l4proto tcp' };

const TRANSLATES: Readonly<Record<BoxKind, string>> = {
  cone: 'masquerade',
  symmetric: 'masquerade fully-random',
  'tcp-only': 'masquerade',
};

/**
 * A ruleset for `nft -f`. What comes to the box itself is dropped: its answer to a packet that comes before the host behind it
 * has sent one would occupy the very mapping that the host is about to make, and give it another port.
 */
export function rulesOf(kind: BoxKind): string {
  return `
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "${INNER_DEVICE}" oifname "${INNER_DEVICE}" accept
    ct state established,related accept
    iifname "${INNER_DEVICE}" oifname "${OUTER_DEVICE}" ${LETS_OUT[kind]} accept
  }
}
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "${OUTER_DEVICE}" ${TRANSLATES[kind]}
  }
}
`;
}

/** Of a host: what comes to it from an address by a protocol is dropped. */
export function droppingRules(address: string, protocol: 'tcp' | 'udp'): string {
  return `
table inet drops {
  chain input {
    type filter hook input priority filter; policy accept;
    ip saddr ${address} meta l4proto ${protocol} drop
  }
}
`;
}
