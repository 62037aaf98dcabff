/** Steps and operators as events of Chrome's trace format. Pure. */
import type { StepResult } from '../../protocol/step-result.ts';
import type { OpGroup, OpSpec } from '../program-spec.ts';

/** Thread ids of a rank in a trace. */
export const engineThread = 0;
export const executorThread = 1;

/** An interval on one thread of a rank, in seconds. */
export interface Span {
  readonly name: string;
  readonly thread: number;
  readonly start: number;
  readonly end: number;
  readonly args?: Readonly<Record<string, number>>;
}

/** The operator group of a span. */
export interface TraceGroup extends OpGroup {
  /** Set for the draft model. */
  readonly isDraft?: true;
}

/** Per event: operator, start, end, seconds spent waiting for other ranks. */
const numbersPerEvent = 4;

/** The exchange of hashes at the end of a step; not an operator. */
const agreement: TraceGroup = { name: 'agree', layer: null };

/** Operators shown on their own, not under their group. */
const ownNames: Partial<Record<OpSpec['op'], string>> = {
  pagedAttention: 'attention',
  allReduce: 'all_reduce',
  add: 'add',
  sample: 'sample',
};

/** `[ops.length]` group of each operator of a program. */
export function groupOperators(ops: readonly OpSpec[]): TraceGroup[] {
  return ops.map(({ op, group }) => ({ name: ownNames[op] ?? group?.name ?? op, layer: group?.layer ?? null }));
}

/** Groups of all operators of a rank: its program's, then its draft's. */
export function groupPrograms(ops: readonly OpSpec[], draftOps: readonly OpSpec[]): TraceGroup[] {
  return [...groupOperators(ops), ...groupOperators(draftOps).map((group): TraceGroup => ({ ...group, isDraft: true }))];
}

/** Spans of an executor step: the step, its layers, their operator groups, and waits for other ranks within these. */
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
    // Only the duration is known. Placed first: a rank does its part of a collective once the others have arrived.
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

/** One trace line: an event and a comma. Times are µs, rounded to whole ns so that nested spans stay nested. */
export function formatSpan(rank: number, { name, thread, start, end, args }: Span): string {
  const from = Math.round(start * 1e9);
  const event = { name, ph: 'X', pid: rank, tid: thread, ...(args && { args }) };
  const times = `"ts":${(from / 1000).toFixed(3)},"dur":${((Math.round(end * 1e9) - from) / 1000).toFixed(3)}`;
  return `${JSON.stringify(event).slice(0, -1)},${times}},\n`;
}

/** Metadata lines that name a rank and its threads. */
export function formatNames(rank: number): string {
  const names: [string, number, string][] = [
    ['process_name', engineThread, `rank ${rank}`],
    ['thread_name', engineThread, 'engine'],
    ['thread_name', executorThread, 'executor'],
  ];
  return names.map(([name, tid, value]) => `${JSON.stringify({ name, ph: 'M', pid: rank, tid, args: { name: value } })},\n`).join('');
}
