#!/usr/bin/env node
// The executable: runs the TypeScript sources in a checkout, and the compiled ones in an installed package.
import { existsSync, readFileSync } from 'node:fs';

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 11)) {
  process.stderr.write(`ndsrun: Expected Node 20.11 or newer but received ${process.version}\n`);
  process.exit(64);
}
if (process.argv[2] === '--version') {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  process.stdout.write(`${version}\n`);
} else if (existsSync(new URL('../launcher/launch.ts', import.meta.url))) {
  const { register } = await import('tsx/esm/api');
  register();
  await import('./ndsrun.ts');
} else {
  await import('../dist/bin/ndsrun.js');
}
