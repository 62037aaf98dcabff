/** What a rank is doing, as its native code wrote it into the state memory: decoding and text. Pure. */

/** Bytes of a rank's block: `StateBlock` of native/core/progress.h. */
export const stateBytes = 256;

export interface RankState {
  readonly rank: number;
  /** `starting` until its first load begins, `step` while a step is in flight. */
  readonly phase: 'starting' | 'loading' | 'idle' | 'step';
  /** The oldest step in flight, else the last one; null before the first. */
  readonly step: number | null;
  /** The step that failed; null = none since the last load began. */
  readonly failedStep: number | null;
  /** In a step: the running operator, and its decoder layer where it belongs to one. */
  readonly operator: string | null;
  readonly layer: number | null;
  readonly isDraft: boolean;
  /** What it waits in; null = it waits for no other rank and no device. */
  readonly waitsIn: string | null;
  /** The first rank that it waits for; null = none, or none that it can name. */
  readonly waitsFor: number | null;
  /** Whether a signal has stopped the process. */
  readonly isStopped: boolean;
  /** Counts progress, modulo 2³². */
  readonly progress: number;
}

/** By `OpKind`. */
const operators = [
  'embedding',
  'RMS norm',
  'linear',
  'all-reduce',
  'head norm',
  'rope',
  'attention',
  'SiLU',
  'add',
  'hidden states',
  'gather of rows',
  'sampling',
];
const agreement = 100;

/** By `Wait`. */
const device = 'device';
const waits = [null, 'all-reduce', 'row exchange', 'all-gather', device];

/** Reads one block. `bytes` [stateBytes] */
export function decodeState(rank: number, bytes: Buffer, isStopped: boolean): RankState {
  const place = bytes.readUInt32LE(4);
  const operator = (place & 0x7f) - 1;
  const awaited = bytes.readUInt32LE(8);
  const [numLoads, numSteps, numLoadsBegun] = [bytes.readUInt32LE(32), bytes.readUInt32LE(36), bytes.readUInt32LE(40)];
  const phase = numLoads > 0 ? 'loading' : numSteps > 0 ? 'step' : numLoadsBegun > 0 ? 'idle' : 'starting';
  return {
    rank,
    phase,
    step: orNull(Number(bytes.readBigUInt64LE(16)) - 1),
    failedStep: orNull(Number(bytes.readBigUInt64LE(24)) - 1),
    operator: operator === agreement ? 'agreement' : (operators[operator] ?? null),
    layer: orNull((place >>> 8) - 1),
    isDraft: (place & 0x80) !== 0,
    waitsIn: waits[bytes.readUInt32LE(12)] ?? null,
    waitsFor: orNull(awaited - 1),
    isStopped,
    progress: bytes.readUInt32LE(0),
  };
}

function orNull(value: number): number | null {
  return value < 0 ? null : value;
}

/** Whether a rank has done anything between two states. */
export function hasMoved(before: RankState, after: RankState): boolean {
  const { progress, phase, step, waitsIn, waitsFor } = before;
  return (
    progress !== after.progress || phase !== after.phase || step !== after.step || waitsIn !== after.waitsIn || waitsFor !== after.waitsFor
  );
}

/**
 * A rank's state in words, such as `rank 3 waits in all-reduce of layer 7, step 1042, for rank 1`.
 * @param newest - the newest step that a rank is in; null = none
 */
export function stateText(state: RankState, newest: number | null): string {
  return `rank ${state.rank} ${state.isStopped ? stopped(state, newest) : doing(state, newest)}`;
}

function doing(state: RankState, newest: number | null): string {
  const { phase, step, waitsIn, waitsFor } = state;
  if (phase === 'starting') return 'has not begun to load';
  if (phase === 'idle') return idling(step, newest);
  const when = phase === 'loading' ? 'loading' : `step ${step}`;
  if (waitsIn === device) return `waits for its device, ${when}`;
  if (waitsIn !== null) return `waits in ${waitsIn}${ofPlace(state)}, ${when}${waitsFor === null ? '' : `, for rank ${waitsFor}`}`;
  if (phase === 'loading') return 'is loading';
  return `is in ${when}${running(state)}`;
}

/** A stopped rank waits for nobody. */
function stopped(state: RankState, newest: number | null): string {
  const { phase, step } = state;
  const by = 'is stopped by a signal';
  if (phase === 'step') return `${by} in step ${step}${running(state)}`;
  return phase === 'loading' ? `${by} while loading` : `${by} and ${doing(state, newest)}`;
}

function idling(step: number | null, newest: number | null): string {
  if (newest !== null) return step !== null && step >= newest ? `has ended step ${step}` : `has not begun step ${newest}`;
  return step === null ? 'is idle' : `is idle after step ${step}`;
}

/** Where a collective belongs: the embedding's row exchange, a layer's all-reduce. */
function ofPlace(state: RankState): string {
  const { operator, layer, waitsIn } = state;
  const of = layer === null && operator !== null && operator !== waitsIn ? ` of ${operator}` : '';
  return of + ofLayer(state);
}

function ofLayer({ layer, isDraft }: RankState): string {
  return (layer === null ? '' : ` of layer ${layer}`) + (isDraft ? ' of the draft' : '');
}

/** The newest step that a rank is in; null = no rank is in one. */
export function newestStep(states: readonly RankState[]): number | null {
  return states.reduce<number | null>((newest, { phase, step }) => (phase === 'step' ? Math.max(newest ?? 0, step ?? 0) : newest), null);
}

/** Phase and step in which a rank failed: for the error report. */
export function placeOfFailure({ phase, step, failedStep }: RankState): Pick<RankState, 'phase' | 'step'> {
  return failedStep === null ? { phase, step } : { phase: 'step', step: failedStep };
}

/** The same in words, such as `in step 7, attention of layer 3`; empty where the rank neither loaded nor was in a step. */
export function failureText(state: RankState): string {
  if (state.failedStep !== null) return `in step ${state.failedStep}`;
  if (state.phase === 'loading') return 'while loading';
  return state.phase === 'step' ? `in step ${state.step}${running(state)}` : '';
}

function running(state: RankState): string {
  return state.operator === null ? '' : `, ${state.operator}${ofLayer(state)}`;
}
