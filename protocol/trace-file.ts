/** A trace of all ranks in Chrome's format (`traceEvents`), joined from one part per rank. */
import { closeSync, existsSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { NdsError } from './errors.ts';

/** Precedes the events, each of which is a line that ends in a comma. */
export const traceHeader = '{"displayTimeUnit":"ms","traceEvents":[\n';

/** Follows the events: one last event, without a comma, and the closing brackets. */
export const traceFooter = '{"name":"process_sort_index","ph":"M","pid":0,"tid":0,"args":{"sort_index":0}}\n]}\n';

const chunkBytes = 1 << 20;
const newline = 0x0a;

/** Path of a rank's part: its events, one per line. */
export function tracePart(runDir: string, rank: number): string {
  return join(runDir, `trace-${rank}.events`);
}

/**
 * Writes the events of all ranks to `file`; ranks that were started anew have parts in several folders. An unfinished last line, of a killed rank, is dropped; a missing part is
 * skipped.
 * @throws NdsError `ERR_SYSTEM` when the file cannot be written.
 */
export function joinTrace(runDirs: readonly string[], worldSize: number, file: string): void {
  let out: number | null = null;
  try {
    out = openSync(file, 'w');
    writeAll(out, Buffer.from(traceHeader));
    for (const runDir of runDirs) {
      const parts = Array.from({ length: worldSize }, (_, rank) => tracePart(runDir, rank));
      for (const part of parts) if (existsSync(part)) copyLines(part, out);
    }
    writeAll(out, Buffer.from(traceFooter));
  } catch (error) {
    throw new NdsError('ERR_SYSTEM', `Expected to write the trace to ${file} but received ${(error as Error).message}`, { cause: error });
  } finally {
    if (out !== null) closeSync(out);
  }
}

/** Copies whole lines only. */
function copyLines(part: string, out: number): void {
  const from = openSync(part, 'r');
  try {
    const chunk = Buffer.alloc(chunkBytes);
    let rest = Buffer.alloc(0);
    for (let length = readSync(from, chunk); length > 0; length = readSync(from, chunk)) {
      const bytes = Buffer.concat([rest, chunk.subarray(0, length)]);
      const end = bytes.lastIndexOf(newline) + 1;
      writeAll(out, bytes.subarray(0, end));
      rest = Buffer.from(bytes.subarray(end));
    }
  } finally {
    closeSync(from);
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written);
}
