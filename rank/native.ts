/** The only importer of the addon; declares what crosses into native code, but for programs. */
import { buildMissing, loadAddon, nativeFiles } from '../native/load.mjs';
import { toNdsError } from '../protocol/errors.ts';
import type { DraftRule } from '../protocol/messages.ts';
import type { DraftSpec, ProgramSpec } from './program-spec.ts';

/** The user's cache folder, and a lock file between processes. */
export { cacheFolder, withLock } from '../native/load.mjs';

/** Memory used by a load. */
export interface LoadReport {
  /** Bytes of packed and mapped weights on this rank. */
  readonly weightBytes: number;
  readonly kvBytes: number;
  readonly scratchBytes: number;
  /** Of `weightBytes`: read from files of packed matrices. */
  readonly fileBytes: number;
  /** Why such a file was not read or written; empty without a reason. */
  readonly notice: string;
}

/**
 * Connections of this host's leader, its local rank 0, to the leaders of the other hosts: pairwise, over TCP, each frame authenticated.
 * Lives as long as an epoch and serves runners one after another, the same number on every host.
 */
export interface Mesh {
  /** Port that it listens on, until it has connected. */
  readonly port: number;
  /**
   * Connects to the leaders of all other hosts, who do the same. Strangers and callers without the key are dropped.
   * @throws NdsError `ERR_PEER_LOST` naming the nodes that did not come in time, `ERR_CLOSED` after `close`.
   */
  connect(options: MeshConnectOptions): Promise<void>;
  /** Ends `connect`, and every collective that waits for another host. The connections close with the last runner that uses them. */
  close(): void;
}

export interface MeshConnectOptions {
  readonly nodeRank: number;
  /** Makes the keys of a connection those of one epoch. */
  readonly epoch: number;
  /** 16 bytes that the leaders of this epoch share. */
  readonly key: Uint8Array;
  /** `[numNodes]` numeric address and port of each leader; this node's are not used. */
  readonly addresses: readonly string[];
  readonly ports: readonly number[];
  readonly timeoutMs: number;
}

/** Place of a rank's host in a gang of several; node n holds ranks n · localWorldSize and on. */
export interface MeshPlace {
  readonly nodeRank: number;
  readonly numNodes: number;
  /** Connected, on local rank 0; null on the others. */
  readonly handle: Mesh | null;
}

export interface RunnerOptions {
  readonly rank: number;
  readonly worldSize: number;
  /** Inherited descriptor of the memory shared by this host's ranks; not read where there is one. */
  readonly shmFd: number;
  /** Index and number of this host's ranks. */
  readonly localRank: number;
  readonly localWorldSize: number;
  /** Set in a gang of several hosts. */
  readonly mesh?: MeshPlace | undefined;
  readonly numThreads: number;
  /** Where threads run; absent: the system places them, and who waits sleeps soon, as where they are crowded. */
  readonly threadPlacement?: { readonly processors: readonly number[]; readonly isCrowded: boolean } | undefined;
  /** Inherited descriptor of the memory that tells the launcher what this rank is doing; absent or -1 = none. */
  readonly stateFd?: number;
  /** CUDA device, and whether sums have one order whatever the batch and the ranks; without it, the CPU computes. */
  readonly cuda?: { readonly deviceIndex: number; readonly deterministic: boolean } | undefined;
  /** Max wait for other ranks before the first step, and within a step. */
  readonly startupTimeoutMs: number;
  readonly stepTimeoutMs: number;
  /** Whether results include operator timings. */
  readonly trace?: boolean;
}

/** A rank's native executor: one thread that loads a model and runs plans in order. */
export interface Runner {
  /** Maps, slices and packs the weights, and allocates KV and scratch. At most one model at a time, perhaps with a draft. */
  load(spec: ProgramSpec, draft?: DraftSpec, rule?: DraftRule): Promise<LoadReport>;
  /** Bytes of weights that the load has packed so far, counted while it runs; those used in place are not counted. */
  loadedBytes(): number;
  /** Queues one step. The bytes are copied; the promise settles when the step is done. */
  submit(step: number, directory: Int32Array, bytes: Uint8Array): Promise<{ directory: Int32Array; bytes: Uint8Array }>;
  /** Ends waiting collectives, drains the queue, frees everything. Queued steps reject with `ERR_CLOSED`. */
  close(): Promise<void>;
}

export interface CpuInfo {
  /**
   * Instruction sets of this processor and build, best first: `amx`, `avx512_bf16`, `avx512_vnni`, `avx512`, `avx_vnni`,
   * `avx2` or `neon_bf16`, `neon_dot`, `neon`, then `portable`. `amx` and those that end in `_bf16` multiply bf16 in hardware.
   */
  readonly isas: readonly string[];
  /** The one in use (`NDS_ISA` forces one). */
  readonly isa: string;
  readonly model: string;
  readonly allowedCores: number;
}

/** A device, as described by CUDA. */
export interface CudaDevice {
  readonly name: string;
  readonly pciBusId: string;
  readonly computeCapability: string;
  readonly numMultiprocessors: number;
  readonly totalBytes: number;
  /** Null unless requested. */
  readonly freeBytes: number | null;
}

/** A library that the CUDA backend opens at run time. */
export interface CudaLibrary {
  readonly name: string;
  readonly path: string | null;
  readonly version: string | null;
  readonly reason: string | null;
}

export interface CudaInfo {
  /** Path at which nds_cuda.so is expected. */
  readonly path: string;
  /** Why CUDA cannot be used; null if it can. */
  readonly reason: string | null;
  readonly isEmulated: boolean;
  readonly driverVersion: string;
  readonly runtimeVersion: string;
  readonly devices: readonly CudaDevice[];
  readonly libraries: readonly CudaLibrary[];
}

export interface Addon {
  readonly version: string;
  /** Version of the layout of packed matrices, the same for every instruction set. */
  readonly packedLayout: number;
  cpuInfo(): CpuInfo;
  /** Opens the CUDA backend. Measures free memory of `device`, modulo their number, which creates a context on it. */
  cudaInfo(device?: number): CudaInfo;
  /**
   * Kills this process when its parent is gone: parent-death signal, and a native thread that watches `watchFd`
   * (-1 = none) for end-of-file. Exits at once when the parent is no longer `parentPid`.
   */
  guardProcess(parentPid: number, watchFd: number): void;
  /**
   * Listens for the leaders of other hosts on a free port of one local address.
   * @throws NdsError `ERR_USAGE` for an address of all interfaces, `ERR_SYSTEM` for one that this host does not have.
   */
  listenMesh(localAddr: string): Mesh;
  createRunner(options: RunnerOptions): Runner;
  /** Single operators on plain arrays, on a named instruction set. For tests and benchmarks only. */
  readonly testing: Record<string, (...args: never[]) => unknown>;
}

/** Build of the CUDA backend. */
export interface CudaBuild {
  readonly mode: 'nvcc' | 'emulated' | 'off';
  readonly compiler: string;
  /** Compute capabilities without the dot; empty for the emulated device. */
  readonly archs: readonly string[];
  /** Hash of all inputs; empty where nothing was built. */
  readonly stamp: string;
  /** Why the build failed; null if it succeeded or was not requested. */
  readonly failure: string | null;
}

/** Paths of the addon and its CUDA backend; `cudaBuild` = that backend's build, null if unknown. */
export function addonFiles(): { readonly addon: string; readonly cuda: string; readonly cudaBuild: CudaBuild | null } {
  return nativeFiles();
}

/**
 * Builds what is missing: the core where no prebuilt one fits, and the CUDA backend where nvcc is, or else fails when `cuda` is set.
 * @throws NdsError `ERR_NATIVE`.
 */
export function buildAddon(options: { readonly cuda: boolean }): ReturnType<typeof addonFiles> & { readonly isPrebuilt: boolean } {
  try {
    return buildMissing(options);
  } catch (error) {
    throw toNdsError(error, 'ERR_NATIVE');
  }
}

/** The addon, built on first use if missing. @throws NdsError `ERR_NATIVE`. */
export function native(): Addon {
  try {
    return loadAddon() as Addon;
  } catch (error) {
    throw toNdsError(error, 'ERR_NATIVE');
  }
}
