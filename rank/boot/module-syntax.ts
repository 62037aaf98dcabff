/** Tells an ES module from a CommonJS one by its text, TypeScript included. */

/** Comments and literals; a string or a regular expression ends with its line, so that one that is misread hides little. */
const comment = /\/\*[\s\S]*?(?:\*\/|$)|\/\/[^\n]*/;
const literal =
  /`(?:\\[\s\S]|[^`\\])*`|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|(?<=[=(,:]\s*)\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+\//;
const hidden = new RegExp(`${comment.source}|${literal.source}`, 'g');

/** `import … from`, `import 'x'`, `export …`; not `import(…)`, `import.meta`, nor TypeScript's `import x = require(…)` and `export = x`. */
const declaration = /^[ \t]*(?:import\b(?!\s*[(.])(?!\s+(?:type\s+)?\w+\s*=)|export\b(?!\s*[=.(]))/m;
const importMeta = /\bimport\s*\.\s*meta\b/;
/** Variables that only a CommonJS module has. */
const commonJs = /(?<![.\w$])(?:require\s*[(.]|module\s*\.\s*exports\b|exports\s*\.|__dirname\b|__filename\b)/;

/**
 * Whether a file is to be read as an ES module, whatever its package says.
 *
 * `import.meta` and a top-level `await` are possible nowhere else. Imports and exports alone are no proof: TypeScript has long been
 * written with them for CommonJS, and such a file tells by the variables that it uses.
 */
export function usesModuleSyntax(source: string): boolean {
  const code = source.replace(hidden, visibleCode);
  if (importMeta.test(code) || hasTopLevelAwait(code)) return true;
  return declaration.test(code) && !commonJs.test(code);
}

/** What is left of a comment or literal: the expressions in a template. */
function visibleCode(text: string): string {
  if (text.startsWith('/')) return ' ';
  const expressions = text.startsWith('`') ? text.matchAll(/\$\{([^}]*)\}/g) : [];
  return `'' ${Array.from(expressions, ([, expression]) => expression).join(' ')}`;
}

/** Outside of all braces, and of what an arrow function without braces returns; one in a block at the top level is not found. */
function hasTopLevelAwait(code: string): boolean {
  const token = /[{}]|(?<![.\w$])await(?![\w$]|\s*[:=,;)])/g;
  let depth = 0;
  for (const { 0: text, index } of code.matchAll(token)) {
    if (text === '{') depth++;
    else if (text === '}') depth--;
    else if (depth === 0 && !isReturnedByArrow(code, index)) return true;
  }
  return false;
}

function isReturnedByArrow(code: string, index: number): boolean {
  const arrow = code.lastIndexOf('=>', index);
  return arrow >= 0 && !/[;{}]/.test(code.slice(arrow, index));
}
