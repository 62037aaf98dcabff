/** Which source texts count as ES modules, and which need a Node with `using`. */
import t from 'tap';
import { usesDisposal, usesModuleSyntax } from '../../../rank/boot/module-syntax.ts';

const modules: Record<string, string> = {
  'an import of names': "import { LLM } from 'x';\nmain();",
  'an import for its effect': "'use strict';\nimport 'x';",
  'an import of a default after a shebang': "#!/usr/bin/env node\nimport x from 'x'",
  'a type called type': "import type from 'x';",
  'an export': 'export const x = 1;',
  'import.meta beside a require of its own': 'const require = createRequire(import.meta.url); require("x");',
  'a top-level await': "const { LLM } = await import('x');",
  'a loop that awaits': 'for await (const x of y) use(x);',
  'await using after functions': 'const f = async () => {\n  await 1;\n};\nawait using x = f();',
  'an import after quotes in a regular expression': "const quote = /[\"'`]/;\nimport x from 'x';",
};

const scripts: Record<string, string> = {
  nothing: '',
  'require and module.exports': "const x = require('x');\nmodule.exports = { await: x };",
  'a dynamic import': "function main() {\n  return import('x');\n}",
  'await in functions only': 'async function f() {\n  await 1;\n}\nconst g = async () => await 2;\nconst h = async () =>\n  await 3;',
  "TypeScript's imports for CommonJS": "import path from 'node:path';\nconsole.log(path.basename(__filename));",
  'a CommonJS variable in a template': "import x from 'x';\nx(`${__dirname}/y`);",
  "TypeScript's import of a require": "import path = require('node:path');\nexport = path;",
  'words in comments': "// import x from 'x'\n/*\nimport y from 'y'\nawait z\n*/ main();",
  'words in strings': 'main(`\nimport x from "x"\nawait y\n`, "await z");',
};

for (const [name, source] of Object.entries(modules)) t.ok(usesModuleSyntax(source), name);
for (const [name, source] of Object.entries(scripts)) t.notOk(usesModuleSyntax(source), name);

for (const source of ['await using llm = x;', '{ using a = b(); }', 'using a = b();', 'if (x) { await  using $y = z }'])
  t.ok(usesDisposal(source), source);
for (const source of ['using(x);', 'const using = 1;', '// await using x = y', '"await using x = y"', 'for (using of x);', 'x.using = y;'])
  t.notOk(usesDisposal(source), source);
