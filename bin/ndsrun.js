#!/bin/sh
':' //; NDS_NOHUP=1; trap 'NDS_NOHUP=0' HUP; kill -HUP $$; export NDS_NOHUP; exec node "$0" "$@"
// Above, to Node a string: a shell cannot trap a signal that was ignored at its start, as SIGHUP is under nohup.
// The executable of a checkout, which is compiled when its sources changed, and of an installed package.
import { existsSync, mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 11)) {
  process.stderr.write(`ndsrun: Expected Node 20.11 or newer but received ${process.version}\n`);
  process.exit(64);
}
// Tried here, before the TypeScript loader does: it ends with a stack trace, or never.
try {
  rmdirSync(mkdtempSync(join(tmpdir(), 'ndsrun-')));
} catch (error) {
  process.stderr.write(`ndsrun: Expected a folder for temporary files in TMPDIR but received ${tmpdir()}: ${error.message} [ERR_SYSTEM]\n`);
  process.exit(70);
}
if (process.argv[2] === '--version') {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  process.stdout.write(`${version}\n`);
} else if (existsSync(new URL('../launcher/launch.ts', import.meta.url))) {
  const { compiledFolder } = await import('./compiled.mjs');
  const folder = await compiledFolder();
  // Ranks do the same where the launcher does. It costs each process about 30 ms of CPU time, so packages have no maps.
  process.setSourceMapsEnabled(true);
  await import(pathToFileURL(join(folder, 'bin', 'ndsrun.js')).href);
} else {
  await import('../dist/bin/ndsrun.js');
}
