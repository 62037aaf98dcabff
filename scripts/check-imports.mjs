/** Checks the import rules; prints every import that breaks one and exits with 1 then. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { listFiles, root } from './files.mjs';
import { checkCpp, checkModule } from './import-rules.mjs';

const modules = listFiles(['bin', 'examples', 'launcher', 'native', 'protocol', 'rank', 'scripts'], ['.ts', '.mts', '.js', '.mjs']);
const cpp = listFiles(['native'], ['.cc', '.h', '.cu', '.cuh']);
const read = (/** @type {string} */ file) => readFileSync(join(root, file), 'utf8');
const problems = [...modules.flatMap((file) => checkModule(file, read(file))), ...cpp.flatMap((file) => checkCpp(file, read(file)))];
for (const problem of problems) console.error(problem);
process.exitCode = problems.length === 0 ? 0 : 1;
