/** Builds the switch that delays frames, once for each state of its source. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { findPackageRoot } from '../../native/tools/sources.mjs';

/** @returns the path of the program. */
export function buildDelaySwitch(): string {
  const root = findPackageRoot();
  const source = join(root, 'test', 'helpers', 'delay-switch.cc');
  const folder = join(root, 'build', 'test');
  const program = join(folder, `delay-switch-${createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16)}`);
  if (existsSync(program)) return program;
  mkdirSync(folder, { recursive: true });
  const own = `${program}.${process.pid}`;
  execFileSync(process.env['CXX'] ?? 'g++', ['-std=c++17', '-O2', '-Wall', '-Wextra', '-o', own, source], { stdio: 'inherit' });
  renameSync(own, program);
  return program;
}
