/** node-datachannel, loaded when it is asked for, and let go of before its thread or process ends. */
import type { RtcDriver } from '../transport/rtc.ts';

let loading: Promise<typeof import('../transport/rtc-native.ts')> | null = null;

export async function loadRtc(): Promise<RtcDriver> {
  loading ??= import('../transport/rtc-native.ts');
  try {
    return (await loading).nativeRtc;
  } catch (error) {
    loading = null;
    throw error;
  }
}

/** Closes all sessions, and ends the native threads. It can be used again afterwards, by the same thread. */
export async function releaseRtc(): Promise<void> {
  if (loading !== null) (await loading).releaseNative();
}
