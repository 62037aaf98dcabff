/** Lets a script be an ES module because it is written as one, also where the nearest package.json says `"type": "commonjs"` or nothing. */
import { existsSync, readFileSync } from 'node:fs';
import * as nodeModule from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';
import { usesModuleSyntax } from './module-syntax.ts';

/** What a resolve hook is given and gives, as far as it matters here. */
interface Resolved {
  readonly url: string;
  readonly format?: string | null | undefined;
}
interface ResolveContext {
  readonly conditions: readonly string[];
}
type NextResolve<R> = (specifier: string, context: ResolveContext) => R;

/** Node's hook in its own thread. */
export async function resolve(specifier: string, context: ResolveContext, next: NextResolve<Promise<Resolved>>): Promise<Resolved> {
  return withFormat(await next(specifier, context), context);
}

function resolveSync(specifier: string, context: ResolveContext, next: NextResolve<Resolved>): Resolved {
  return withFormat(next(specifier, context), context);
}

/** Files with an unmistakable extension, those of installed packages and whatever is required stay what they are. */
function withFormat(resolved: Resolved, { conditions }: ResolveContext): Resolved {
  if (!resolved.url.startsWith('file:') || resolved.format?.startsWith('module') || conditions.includes('require')) return resolved;
  // tsx marks what it takes for a CommonJS file in its query, and on Node 20 in its path too.
  const url = resolved.url.replace(/(?:%3F|[?&])tsx-commonjs-.*$/, '');
  const path = fileURLToPath(url);
  const isUndecided = /\.[jt]sx?$/.test(path) && !path.includes('/node_modules/') && existsSync(path);
  return isUndecided && usesModuleSyntax(readFileSync(path, 'utf8')) ? { ...resolved, url, format: 'module' } : resolved;
}

interface HooksApi {
  readonly registerHooks?: (hooks: { readonly resolve: typeof resolveSync }) => void;
}

// Registered after the TypeScript loader, hence asked before it. Node 20 has only hooks in a thread of their own.
const { registerHooks } = nodeModule as HooksApi;
if (registerHooks !== undefined) registerHooks({ resolve: resolveSync });
else if (isMainThread) nodeModule.register(import.meta.url);
