/** Which CUDA devices this build can use. Pure, from what CUDA reports. */
import type { CudaDevice, CudaInfo } from './native.ts';

/** Min major compute capability: the first with bfloat16 matrix instructions. */
const oldestCapability = 8;

/** Why a device cannot be used; null if it can. */
export function refusalOf({ name, computeCapability }: CudaDevice): string | null {
  if (Number(computeCapability.split('.')[0]) >= oldestCapability) return null;
  return `Expected compute capability ${oldestCapability}.0 or newer but received ${computeCapability}, ${name}`;
}

/** A local rank's device, `localRank` modulo their number, or why it has none. */
export function deviceOfRank({ reason, devices }: Pick<CudaInfo, 'reason' | 'devices'>, localRank: number) {
  const device = devices[localRank % Math.max(1, devices.length)];
  if (reason !== null || device === undefined) return { device: null, reason: reason ?? 'Expected a CUDA device but found none' };
  const refusal = refusalOf(device);
  return refusal === null ? { device, reason: null } : { device: null, reason: refusal };
}

/** The usable devices, or why there are none. Ranks take devices by index, so the first unusable one ends the list. */
export function usableDevices({ reason, devices }: Pick<CudaInfo, 'reason' | 'devices'>) {
  const refusals = devices.map(refusalOf);
  const end = refusals.findIndex((refusal) => refusal !== null);
  const usable = reason !== null ? [] : end === -1 ? devices : devices.slice(0, end);
  return { devices: usable, reason: usable.length > 0 ? null : (reason ?? refusals[0] ?? 'Expected a CUDA device but found none') };
}
