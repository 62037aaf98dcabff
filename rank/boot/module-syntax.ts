/** Detects ES module syntax, and `using`, in JavaScript and TypeScript source. */

/** Comments and literals. A string or regular expression ends with its line, so that a misread one hides little. */
const comment = /\/\*[\s\S]*?(?:\*\/|$)|\/\/[^\n]*/;
const literal =
  /`(?:\\[\s\S]|[^`\\])*`|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|(?<=[=(,:]\s*)\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+\//;
const hidden = new RegExp(`${comment.source}|${literal.source}`, 'g');

/** `import … from`, `import 'x'`, `export …`; not `import(…)`, `import.meta`, nor TypeScript's `import x = require(…)` and `export = x`. */
const declaration = /^[ \t]*(?:import\b(?!\s*[(.])(?!\s+(?:type\s+)?\w+\s*=)|export\b(?!\s*[=.(]))/m;
const importMeta = /\bimport\s*\.\s*meta\b/;
/** Variables that exist only in CommonJS. */
const commonJs = /(?<![.\w$])(?:require\s*[(.]|module\s*\.\s*exports\b|exports\s*\.|__dirname\b|__filename\b)/;

/**
 * Whether a file is an ES module, whatever its package says.
 *
 * `import.meta` and top-level `await` exist only there. Imports and exports alone prove nothing: TypeScript compiled to
 * CommonJS has them too, and is recognized by the CommonJS variables it uses.
 */
export function usesModuleSyntax(source: string): boolean {
  const code = withoutText(source);
  if (importMeta.test(code) || hasTopLevelAwait(code)) return true;
  return declaration.test(code) && !commonJs.test(code);
}

/** Whether a block ends with disposals: `using x = …` or `await using x = …`. */
export function usesDisposal(source: string): boolean {
  return /(?:^|[;{}]|\bawait)\s*using\s+(?!of\b|in\b)[\w$]+\s*=/m.test(withoutText(source));
}

/** The code, without comments and literals. */
function withoutText(source: string): string {
  return source.replace(hidden, visibleCode);
}

/** Replaces a comment or literal, keeping the expressions of a template. */
function visibleCode(text: string): string {
  if (text.startsWith('/')) return ' ';
  const expressions = text.startsWith('`') ? text.matchAll(/\$\{([^}]*)\}/g) : [];
  return `'' ${Array.from(expressions, ([, expression]) => expression).join(' ')}`;
}

/** Outside braces and brace-less arrow bodies; an `await` in a top-level block is missed. */
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
