/** What peers say to one another before a data connection is one (see transport/handshake.ts). */
import * as v from 'valibot';
import { byType, type ControlSchema } from './control-schema.ts';
import { name, secret, u32 } from './parts.ts';

const dialMessage = v.variant('type', [
  v.strictObject({
    type: v.literal('dial'),
    version: u32,
    run: name,
    from: name,
    to: name,
    session: u32,
    /** As the dialler sees it: `inbound`, it reads; `outbound`, it writes; `successor`, it will read when it has said so. */
    lane: v.picklist(['inbound', 'outbound', 'successor', 'inbound-more', 'outbound-more']),
    nonce: secret,
  }),
  v.strictObject({ type: v.literal('dial-accept'), nonce: secret, proof: secret }),
  v.strictObject({ type: v.literal('dial-prove'), proof: secret }),
]);

export type DialMessage = v.InferOutput<typeof dialMessage>;

export const DIAL_MESSAGES: ControlSchema<DialMessage> = byType(dialMessage, []);
