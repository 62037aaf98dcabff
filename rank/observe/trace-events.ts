/** Steps and operators as events of Chrome's trace format: pure. */
import type { StepResult } from '../../protocol/step-result.ts';
import type { OpGroup, OpSpec } from '../native.ts';

/** The two threads that a rank shows. */
export const engineThread = 0;
export const executorThread = 1;

/** A stretch of time on one thread of one rank, in seconds. */
export interface Span {
  readonly name: string;
  readonly thread: number;
  readonly start: number;
  readonly end: number;
  readonly args?: Readonly<Record<string, number>>;
}

/** What a stretch of a step belongs to. */
export interface TraceGroup extends OpGroup {
  /** Whether the model is the draft. */
  readonly isDraft?: true;
}

/** Numbers of a trace event: operator, start, end, seconds of them that it waited for other ranks. */
const numbersPerEvent = 4;

/** The exchange of hashes at the end of a step, which is no operator of the program. */
const agreement: TraceGroup = { name: 'agree', layer: null };

/** Operators that a trace shows by themselves, not with their group. */
const ownNames: Partial<Record<OpSpec['op'], string>> = {
  pagedAttention: 'attention',
  allReduce: 'all_reduce',
  add: 'add',
  sample: 'sample',
};

/** The group of every operator of a program. */
export function groupOperators(ops: readonly OpSpec[]): TraceGroup[] {
  return ops.map(({ op, group }) => ({ name: ownNames[op] ?? group?.name ?? op, layer: group?.layer ?? null }));
}

/** The groups of all operators of a rank: those of its program, then those of its draft's. */
export function groupPrograms(ops: readonly OpSpec[], draftOps: readonly OpSpec[]): TraceGroup[] {
  return [...groupOperators(ops), ...groupOperators(draftOps).map((group): TraceGroup => ({ ...group, isDraft: true }))];
}

/** A step of the executor: the step itself, its layers, their groups of operators, and in these the waits for other ranks. */
export function executorSpans(step: number, result: StepResult, groups: readonly TraceGroup[]): Span[] {
  const { startSeconds, endSeconds, waitSeconds, trace, numTokens } = result;
  const args = { step, numSeqs: numTokens.length, waitMicroseconds: waitSeconds * 1e6 };
  const spans: Span[] = [{ name: 'step', thread: executorThread, start: startSeconds, end: endSeconds, args }];
  const layers: Span[] = [];
  const parts: Span[] = [];
  const waits: Span[] = [];
  let last: TraceGroup | null = null;
  let lastLayer: number | null = null;
  for (let i = 0; i < trace.length; i += numbersPerEvent) {
    const [op, start, end, waited] = trace.subarray(i, i + numbersPerEvent) as unknown as [number, number, number, number];
    const group = op < 0 ? agreement : (groups[op] as TraceGroup);
    const thread = executorThread;
    const model = group.isDraft ? 'draft ' : '';
    if (group.layer !== null && group.layer !== lastLayer) layers.push({ name: `${model}layer ${group.layer}`, thread, start, end });
    else if (group.layer !== null) extend(layers, end);
    if (last !== null && isSameGroup(group, last)) extend(parts, end);
    else parts.push({ name: model + group.name, thread, start, end, args: { step } });
    // Only how long is known, not when: what a rank has itself to do in a collective comes after the others have come.
    if (waited > 0) waits.push({ name: 'wait', thread, start, end: Math.min(end, start + waited) });
    last = group;
    lastLayer = group.layer;
  }
  return [...spans, ...layers, ...parts, ...waits];
}

function isSameGroup(a: TraceGroup, b: TraceGroup): boolean {
  return a.name === b.name && a.layer === b.layer && a.isDraft === b.isDraft;
}

function extend(spans: Span[], end: number): void {
  spans.push({ ...(spans.pop() as Span), end });
}

/** One line of a trace: an event and a comma. Times are microseconds with three digits, from whole nanoseconds, so that what nests stays nested. */
export function formatSpan(rank: number, { name, thread, start, end, args }: Span): string {
  const from = Math.round(start * 1e9);
  const event = { name, ph: 'X', pid: rank, tid: thread, ...(args && { args }) };
  const times = `"ts":${(from / 1000).toFixed(3)},"dur":${((Math.round(end * 1e9) - from) / 1000).toFixed(3)}`;
  return `${JSON.stringify(event).slice(0, -1)},${times}},\n`;
}

/** The names of a rank and of its threads. */
export function formatNames(rank: number): string {
  const names: [string, number, string][] = [
    ['process_name', engineThread, `rank ${rank}`],
    ['thread_name', engineThread, 'engine'],
    ['thread_name', executorThread, 'executor'],
  ];
  return names.map(([name, tid, value]) => `${JSON.stringify({ name, ph: 'M', pid: rank, tid, args: { name: value } })},\n`).join('');
}
