/** Imports of this package get the copy that runs this rank: one version speaks the protocol, wherever the script is. */
import Module, * as nodeModule from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';

/** The parts of a resolve hook's types that are used here. */
interface Resolved {
  readonly url: string;
  readonly format?: string | null | undefined;
  readonly shortCircuit?: boolean;
}
type NextResolve<R> = (specifier: string, context: object) => R;

const name = 'nano-dist-spec';
const entry = new URL('../index.js', import.meta.url);
const own: Resolved = { url: entry.href, format: 'module', shortCircuit: true };

/** Node's asynchronous hook, on the hooks thread. */
export async function resolve(specifier: string, context: object, next: NextResolve<Promise<Resolved>>): Promise<Resolved> {
  return specifier === name ? own : next(specifier, context);
}

interface HooksApi {
  readonly registerHooks?: (hooks: { readonly resolve: (...args: [string, object, NextResolve<Resolved>]) => Resolved }) => void;
}
interface CommonJs {
  _resolveFilename(request: string, ...rest: unknown[]): string;
}

// Registered after the TypeScript loader, hence called before it. Node 20 has only hooks on their own thread.
const { registerHooks } = nodeModule as HooksApi;
if (registerHooks !== undefined) {
  registerHooks({ resolve: (specifier, context, next) => (specifier === name ? own : next(specifier, context)) });
} else if (isMainThread) nodeModule.register(import.meta.url);

const commonJs = Module as unknown as CommonJs;
const { _resolveFilename: resolveFilename } = commonJs;
commonJs._resolveFilename = function (this: CommonJs, request, ...rest) {
  return request === name ? fileURLToPath(entry) : resolveFilename.call(this, request, ...rest);
};
