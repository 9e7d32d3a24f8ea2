/** Bounds on everything that comes from outside. Each queue, frame and buffer elsewhere names one of these. */

/** Version of both the control messages and the data frames; peers of different versions refuse one another. */
export const PROTOCOL_VERSION = 3;

/** Bytes a connection may make us hold before it has proved who it is. */
export const MAX_HANDSHAKE_BYTES: number = 4 * 1024;

/** Milliseconds a connection has to prove who it is. */
export const HANDSHAKE_TIMEOUT_MS = 5_000;

/** Connections that may be on their way to prove who they are at once, in all and from one address; loopback is not counted by address. */
export const MAX_UNAUTHENTICATED = 1_024;
export const MAX_UNAUTHENTICATED_PER_ORIGIN = 128;

/** Largest body of a control frame between authenticated ends. A few messages may take several frames: see `pages.ts`. */
export const MAX_CONTROL_BYTES: number = 64 * 1024;

/** Values in one control message, and how deep they are in one another: a welcome to the largest run has half as many. */
export const MAX_CONTROL_VALUES: number = 256 * 1024;
export const MAX_CONTROL_DEPTH = 8;

/** Largest payload of a data frame: one segment. */
export const MAX_SEGMENT_BYTES: number = 1024 * 1024;

/** Peers through which a frame may be relayed, source and destination included, and the bytes that name them. */
export const MAX_PATH_LENGTH = 16;
export const MAX_PATH_BYTES: number = 5 * 1024;

/** Largest frame on its way through other peers: a path, a header and a segment. */
export const MAX_RELAY_BYTES: number = MAX_SEGMENT_BYTES + MAX_PATH_BYTES + 64;

/** Relayed bytes of one collective that one peer may have on the way to another. */
export const RELAY_WINDOW_BYTES: number = 2 * MAX_SEGMENT_BYTES;

/** Bytes queued towards one peer above which what others want relayed to it is refused. */
export const MAX_RELAY_QUEUE_BYTES: number = 64 * 1024 * 1024;

/** Pairs of peers that can't reach one another, of which a view tells. */
export const MAX_CUTS = 4_096;

/** Largest description in an `open` frame. */
export const MAX_OPEN_BYTES: number = 2 * 1024;

/** What one signal of a WebRTC session may hold, in UTF-16 units. */
export const MAX_SDP_LENGTH: number = 8 * 1024;
export const MAX_CANDIDATE_LENGTH = 1_024;

/** Largest claims of a pass, in characters: they are part of a name by which TLS finds a key, and that has 256 at most. */
export const MAX_CLAIMS_LENGTH = 240;

/** STUN and TURN servers that a coordinator may tell its peers of. */
export const MAX_ICE_SERVERS = 8;

/** Largest tag, in UTF-16 units. */
export const MAX_TAG_LENGTH = 200;

/** Largest explanation in a control message, in UTF-16 units. */
export const MAX_TEXT_LENGTH = 2_000;

/** Distinct tags in one view: each costs a counter for as long as the view lives. */
export const MAX_TAGS = 65_536;

/** Tags under which what codecs dropped is kept, for error feedback: each costs as much memory as its tensor. */
export const MAX_RESIDUALS = 1_024;

/** Peers in a run. */
export const MAX_WORLD_SIZE = 1_024;

/** Processors of a machine: more are counted as so many. */
export const MAX_CORES = 65_536;

/** Runs of one coordinator: the epoch of each is remembered when nobody is left in it. */
export const MAX_RUNS = 1_024;

/** A call whose logical vector is at most this large sends data without waiting for the receiver's `open`. */
export const EAGER_BYTES: number = 64 * 1024;

/** Frames of calls not made here yet that one link may make us keep, in bytes and in number. */
export const MAX_UNEXPECTED_BYTES: number = 8 * 1024 * 1024;
export const MAX_UNEXPECTED_FRAMES = 16_384;

/** Collectives that one peer may have open at once. */
export const MAX_OPEN_COLLECTIVES = 4_096;

/** Parallel connections per link and direction. */
export const MAX_STRIPES = 16;

/** Bytes queued on one connection above which no new segment is given to it. */
export const LINK_HIGH_WATER_BYTES: number = 512 * 1024;

/** Bytes queued towards one peer on the control connection above which it is considered lost. */
export const MAX_CONTROL_QUEUE_BYTES: number = 16 * 1024 * 1024;

/** Ranges of one tensor, and of all in one message, that are told to be finished when a peer is lost. */
export const MAX_KEPT_RANGES = 256;
export const MAX_TOLD_RANGES = 16_384;

/** Views and failed collectives that a peer tells a coordinator of to which it comes back. */
export const MAX_REPORTED_VIEWS = 16;
export const MAX_REPORTED_FAILURES = 512;

/** Collectives of which one message tells that they wait for one peer and could do without it, and for all peers together. */
export const MAX_TOLD_STRAGGLING = 64;
export const MAX_TOLD_WAITING = 4_096;

/** Ways of which one message tells what they are worth. */
export const MAX_TOLD_LINKS = 32;

/** The most that is sent at once to measure a way that carries nothing else (bytes). */
export const PROBE_BYTES: number = 512 * 1024;

/** Collectives that a peer remembers for its flight record. */
export const MAX_FLIGHT_CALLS = 1_000;

/** Bytes of a flight record that a peer sends to whoever asks for it; of a longer one the first calls are left out. */
export const MAX_FLIGHT_BYTES: number = 512 * 1024;

/** Flight records that a coordinator fetches at once for one who asks, and how many may ask at once in a run. */
export const MAX_FLIGHTS_AT_ONCE = 16;
export const MAX_FLIGHT_ASKERS = 4;
/** Of a histogram of latencies: bounds, and one for what is above them all. */
export const LATENCY_BUCKETS = 32;

/** Ways of whose traffic one message tells. */
export const MAX_TOLD_FLOWS = 32;
/** Pieces of which shared state is made (bytes): what is moved and checked by itself, and the most that one answer brings. */
export const STATE_PIECE_BYTES: number = 1024 * 1024;

/** A run's notes: one value as JSON and its key; all of them together as an update, for peers that write, and for a coordinator. */
export const MAX_NOTE_BYTES: number = 16 * 1024;
export const MAX_NOTE_KEY_LENGTH = 200;
export const NOTES_ROOM_BYTES: number = 192 * 1024;
export const MAX_NOTES_BYTES: number = 256 * 1024;

/** Updates of notes that a peer may send at once, and in a second. */
export const NOTES_BURST = 100;
export const NOTES_PER_SECOND = 40;

/** Messages about notes that a program has not read yet, above which they are fetched anew when it has. */
export const MAX_UNREAD_NOTES = 256;
