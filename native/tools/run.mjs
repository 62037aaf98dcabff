/** Runs a compiler or a build tool. */
import { spawn } from 'node:child_process';
import { nativeError } from './sources.mjs';

// Progress lines of Ninja and make: `[3/37] Building …`, `[ 12%] Building …`.
const progressLine = /^\[[^\]\n]*\d[^\]\n]*\] .*\n/gm;

/**
 * Runs a program and returns its output. Rejects with the output if it fails.
 * @param {string} program
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} [env]
 * @param {(output: string) => void} [onOutput] hears of each piece of standard output
 * @returns {Promise<string>}
 */
export function run(program, args, env = process.env, onOutput = () => {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    /** @type {Buffer[]} */
    const chunks = [];
    child.stdout.on('data', (chunk) => {
      chunks.push(chunk);
      onOutput(chunk.toString());
    });
    child.stderr.on('data', (chunk) => chunks.push(chunk));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      const output = Buffer.concat(chunks).toString().replace(progressLine, '');
      if (code === 0) return resolve(output);
      reject(nativeError(`${output.trimEnd()}\nExpected ${program} to compile the native core but it ended with ${signal ?? code}`));
    });
  });
}
