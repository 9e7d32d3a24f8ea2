/** For what is said about a call alone: this peer is a member already. `then` leaves. */
import { type Group, join } from 'skein';

export const group: Group = await join();
export const gradients: Float32Array = new Float32Array(4_096).fill(group.rank + 1);
