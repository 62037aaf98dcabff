/** Processes of a test, found by a variable in their environment, which children inherit. Linux. */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const variable = 'TEST_MARK';

/** A value of the variable that no other test has. */
export function newMark(): Record<string, string> {
  return { [variable]: randomBytes(8).toString('hex') };
}

/** Process ids of the processes that were started with a mark. A zombie has no environment, and does not count. */
export function markedProcesses(mark: Readonly<Record<string, string>>): number[] {
  const entry = Buffer.from(`${variable}=${mark[variable]}\0`);
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => readProc(pid, 'environ').includes(entry)).map(Number);
}

/** One line for each process, with its command. */
export function describeProcesses(pids: readonly number[]): string[] {
  return pids.map((pid) => `process ${pid}: ${readProc(String(pid), 'cmdline').toString().replaceAll('\0', ' ').trim()}`);
}

/** What is left after a test, once nothing is or `timeoutMs` have passed. */
export async function leftAfter(find: () => string[], timeoutMs: number): Promise<string[]> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const left = find();
    if (left.length === 0 || performance.now() > deadline) return left;
    await delay(10);
  }
}

/** Empty for a process that has ended, or is not ours. */
function readProc(pid: string, name: string): Buffer {
  try {
    return readFileSync(join('/proc', pid, name));
  } catch {
    return Buffer.alloc(0);
  }
}
