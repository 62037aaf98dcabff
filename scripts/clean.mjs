/** Removes folders, given relative to the root: `node scripts/clean.mjs dist`. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './files.mjs';

for (const folder of process.argv.slice(2)) rmSync(join(root, folder), { recursive: true, force: true });
