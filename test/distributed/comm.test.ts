/** The collectives between processes that inherit one unlinked file. */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { spawnTied } from '../helpers/tied-process.ts';

interface Outcome {
  readonly bytes?: string;
  readonly code?: string;
  readonly message?: string;
}

const script = fileURLToPath(new URL('comm-rank.ts', import.meta.url));
const root = fileURLToPath(new URL('../../', import.meta.url));

/** Runs one process per entry of `endings`; the result of a killed one is null. */
async function runProcesses(numCommunicators: number, endings: string[]): Promise<(Outcome[] | null)[]> {
  const folder = mkdtempSync(join(tmpdir(), 'nds-comm-'));
  const fd = openSync(join(folder, 'memory'), 'wx+', 0o600);
  rmSync(folder, { recursive: true });
  const results = endings.map(async (ending, rank): Promise<Outcome[] | null> => {
    const args = ['--import', 'tsx', script, String(rank), String(endings.length), String(numCommunicators), ending];
    const env = { ...process.env, NODE_OPTIONS: '' };
    const child = spawnTied(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit', fd], env });
    let output = '';
    child.stdout?.on('data', (data: Buffer) => {
      output += data.toString();
    });
    const signal = await new Promise((resolve, reject) => child.on('error', reject).on('close', (_, by) => resolve(by)));
    return signal === null ? (JSON.parse(output) as Outcome[]) : null;
  });
  closeSync(fd);
  return Promise.all(results);
}

test('three processes, three communicators in turn', async (t) => {
  const results = await runProcesses(3, ['ends', 'ends', 'ends']);
  for (const outcomes of results) {
    for (let i = 0; i < 3; i++) {
      const sums = Float32Array.from({ length: 3000 }, (_, j) => 6000 + 3 * ((j % 100) + i));
      t.equal(outcomes?.[3 * i]?.bytes, Buffer.from(sums.buffer).toString('base64'));
      t.equal(outcomes?.[3 * i + 1]?.bytes, Buffer.from([0, 1, 1, 2, 2, 2]).toString('base64'));
    }
  }
});

test('a killed process is named by those that wait for it', async (t) => {
  const results = await runProcesses(1, ['waits', 'waits', 'is killed']);
  t.equal(results[2], null);
  for (const outcomes of results.slice(0, 2)) {
    t.match(outcomes?.at(-1), {
      code: 'ERR_STEP_TIMEOUT',
      message: /^step 12, all-gather 3 of 3 bytes: rank \d waited .* s for rank 2( until rank \d timed out)?$/,
    });
  }
});
