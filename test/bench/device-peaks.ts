/** What a device's memory and tensor cores can do, by its name. */
import { native } from '../../rank/native.ts';

export interface DevicePeaks {
  readonly bytesPerSecond: number;
  /** bf16 with fp32 sums, dense. */
  readonly flopsPerSecond: number;
}

/** GB/s and TFLOP/s of NVIDIA's data sheets; the first name that a device's contains counts. */
const known: readonly (readonly [name: string, gbPerSecond: number, tflops: number])[] = [
  ['H200', 4800, 989],
  ['H100 PCIe', 2000, 756],
  ['H100 NVL', 3900, 835],
  ['H100', 3350, 989],
  ['A100', 1555, 312],
];

/** Peaks of device 0, or those that NDS_BENCH_GB_PER_S and NDS_BENCH_TFLOPS give; null where neither is known. */
export function devicePeaks(): DevicePeaks | null {
  const name = native().cudaInfo().devices[0]?.name ?? '';
  const [, gbPerSecond, tflops] = known.find(([part]) => name.includes(part)) ?? [];
  const bytes = Number(process.env['NDS_BENCH_GB_PER_S'] ?? gbPerSecond);
  const flops = Number(process.env['NDS_BENCH_TFLOPS'] ?? tflops);
  return bytes > 0 && flops > 0 ? { bytesPerSecond: bytes * 1e9, flopsPerSecond: flops * 1e12 } : null;
}

/** Prints a line for test/bench/gpu-table.mjs. `share`: of the peak that bounds the case; null = unknown. */
export function report(result: { shape: string; case: string; system: string; tokensPerSecond: number; share: number | null }): void {
  console.log(`result ${JSON.stringify(result)}`);
}
