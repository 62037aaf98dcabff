/** Reads a trace of all ranks, and checks that it holds every step, nested, with its operators. */
import { readFileSync } from 'node:fs';
import type { Test } from 'tap';

export interface Event {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
  readonly args: Readonly<Record<string, unknown>>;
}

export function readTrace(file: string): Event[] {
  return (JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: Event[] }).traceEvents;
}

export const endOf = ({ ts, dur }: Event) => ts + dur;
/** Times have three decimals; their sums may differ in the last bits. */
const inside = (inner: Event, outer: Event) => inner.ts >= outer.ts - 1e-3 && endOf(inner) <= endOf(outer) + 1e-3;
export const count = (events: readonly Event[], name: string) => events.filter((event) => event.name === name).length;

/** A trace of one request: its steps, and how often each operator runs in one. */
export interface Expected {
  readonly numSteps: number;
  readonly numLayers: number;
  readonly opsPerStep: Readonly<Record<string, number>>;
}

export function checkRanks(t: Test, file: string, worldSize: number, { numSteps, numLayers, opsPerStep }: Expected): void {
  const events = readTrace(file);
  const spans = events.filter(({ ph }) => ph === 'X');
  for (let rank = 0; rank < worldSize; rank++) {
    t.match(
      events.filter(({ ph, pid }) => ph === 'M' && pid === rank),
      [{ args: { name: `rank ${rank}` } }, { args: { name: 'engine' } }, { args: { name: 'executor' } }],
    );
    const executor = spans.filter(({ pid, tid }) => pid === rank && tid === 1);
    const steps = executor.filter(({ name }) => name === 'step');
    t.same(
      steps.map(({ args }) => args['step']),
      Array.from({ length: numSteps }, (_, i) => i),
      `rank ${rank} has every step`,
    );
    t.equal(count(executor, 'agree'), worldSize > 1 ? numSteps : 0);
    for (const [name, times] of Object.entries(opsPerStep)) t.equal(count(executor, name), numSteps * times, name);
    for (let layer = 0; layer < numLayers; layer++) t.equal(count(executor, `layer ${layer}`), numSteps);
    checkNesting(t, executor);
    const engine = spans.filter(({ pid, tid }) => pid === rank && tid === 0);
    const expected = rank > 0 ? {} : { build: numSteps, commit: numSteps, ...(worldSize > 1 && { send: numSteps }) };
    for (const [name, times] of Object.entries(expected)) t.equal(count(engine, name), times, name);
    if (rank === 0) t.ok(count(engine, 'schedule') >= numSteps);
    else t.same(engine, []);
    const isOrdered = engine.every((event, i) => i === 0 || event.ts >= endOf(engine[i - 1] as Event) - 1e-3);
    t.ok(isOrdered, 'one thing at a time');
  }
}

/** Checks that any two events of a thread are disjoint or nested. */
function checkNesting(t: Test, events: readonly Event[]): void {
  const sorted = events.toSorted((a, b) => a.ts - b.ts || b.dur - a.dur);
  const open: Event[] = [];
  let numCrossing = 0;
  for (const event of sorted) {
    while (open.length > 0 && endOf(open.at(-1) as Event) <= event.ts + 1e-3) open.pop();
    if (open.length > 0 && !inside(event, open.at(-1) as Event)) numCrossing++;
    if (event.name === 'wait') t.ok(open.length > 1, 'a wait is part of an operator');
    open.push(event);
  }
  t.equal(numCrossing, 0, 'events nest');
}

/** Events of a name that were not at the same time on ranks 0 and 1. */
export function eventsApart(file: string, name: string): Event[] {
  const ops = (pid: number) => readTrace(file).filter((event) => event.pid === pid && event.name === name);
  const other = ops(1);
  return ops(0).filter((event, i) => event.ts > endOf(other[i] as Event) || (other[i] as Event).ts > endOf(event));
}
