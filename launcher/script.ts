/** Checks the files that a command line names, before anything starts. */
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, dirname, extname, join, resolve } from 'node:path';
import { NdsError } from '../protocol/errors.ts';
import type { LaunchOptions } from './options.ts';

const extensions = ['.ts', '.mts', '.js', '.mjs', '.cts', '.cjs'];

/** @throws NdsError `ERR_NOT_FOUND` for a script that does not exist, `ERR_USAGE` for one that cannot be run. */
export function checkScript({ script, noNode }: Pick<LaunchOptions, 'script' | 'noNode'>): void {
  if (noNode) return checkProgram(script);
  const stats = statSync(script, { throwIfNoEntry: false });
  if (stats === undefined) throw notFound(script);
  if (!stats.isFile()) throw new NdsError('ERR_USAGE', `Expected a file for the script but received ${script}, which is none`);
  if (!extensions.includes(extname(script))) {
    throw new NdsError(
      'ERR_USAGE',
      `Expected a script ending in ${extensions.join(', ')} but received ${script} (--no-node runs a program)`,
    );
  }
}

/** @throws NdsError `ERR_USAGE` for an output file that could not be written at the end. */
export function checkFiles({ report, trace, record }: Pick<LaunchOptions, 'report' | 'trace' | 'record'>): void {
  for (const [option, file] of Object.entries({ report, trace, record })) {
    if (file !== null) checkFile(option, file);
  }
}

function checkFile(option: string, file: string): void {
  try {
    accessSync(dirname(resolve(file)), constants.W_OK);
    const stats = statSync(file, { throwIfNoEntry: false });
    if (stats?.isDirectory()) throw new Error('it is a folder');
    if (stats !== undefined) accessSync(file, constants.W_OK);
  } catch (error) {
    throw new NdsError('ERR_USAGE', `Expected a writable file for --${option} but received ${file}: ${(error as Error).message}`);
  }
}

function checkProgram(program: string): void {
  const folders = program.includes('/') ? [''] : (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  if (!folders.some((folder) => isExecutable(folder === '' ? program : join(folder, program)))) {
    throw new NdsError('ERR_NOT_FOUND', `Expected a program for --no-node but received ${program}, which is not there or cannot be run`);
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function notFound(script: string): NdsError {
  return new NdsError('ERR_NOT_FOUND', `Expected a script but received ${script}, which does not exist`);
}
