/** Loads scripts written as ES modules as such, whatever `"type"` the nearest package.json sets. */
import { existsSync, readFileSync } from 'node:fs';
import * as nodeModule from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';
import { usesModuleSyntax } from './module-syntax.ts';

/** The parts of a resolve hook's types that are used here. */
interface Resolved {
  readonly url: string;
  readonly format?: string | null | undefined;
}
interface ResolveContext {
  readonly conditions: readonly string[];
}
type NextResolve<R> = (specifier: string, context: ResolveContext) => R;

/** Node's asynchronous hook, on the hooks thread. */
export async function resolve(specifier: string, context: ResolveContext, next: NextResolve<Promise<Resolved>>): Promise<Resolved> {
  return withFormat(await next(specifier, context), context);
}

function resolveSync(specifier: string, context: ResolveContext, next: NextResolve<Resolved>): Resolved {
  return withFormat(next(specifier, context), context);
}

/** Leaves files with an explicit extension, installed packages and required modules unchanged. */
function withFormat(resolved: Resolved, { conditions }: ResolveContext): Resolved {
  if (!resolved.url.startsWith('file:') || resolved.format?.startsWith('module') || conditions.includes('require')) return resolved;
  // tsx marks a file that it takes for CommonJS in its query, and on Node 20 in its path too.
  const url = resolved.url.replace(/(?:%3F|[?&])tsx-commonjs-.*$/, '');
  const path = fileURLToPath(url);
  const isUndecided = /\.[jt]sx?$/.test(path) && !path.includes('/node_modules/') && existsSync(path);
  return isUndecided && usesModuleSyntax(readFileSync(path, 'utf8')) ? { ...resolved, url, format: 'module' } : resolved;
}

interface HooksApi {
  readonly registerHooks?: (hooks: { readonly resolve: typeof resolveSync }) => void;
}

// Registered after the TypeScript loader, hence called before it. Node 20 has only hooks on their own thread.
const { registerHooks } = nodeModule as HooksApi;
if (registerHooks !== undefined) registerHooks({ resolve: resolveSync });
else if (isMainThread) nodeModule.register(import.meta.url);
