/** Corrects what the TypeScript loader makes of a file. Registered after it, hence called before it. */
import Module, * as nodeModule from 'node:module';
import { isMainThread } from 'node:worker_threads';
import { resetErrors } from './lowered-using.mjs';

/** The parts of a load hook's types that are used here. */
interface Loaded {
  readonly format?: string | null | undefined;
  readonly source?: unknown;
}
type NextLoad<R> = (url: string, context: object) => R;

/** Node's asynchronous hook, on the hooks thread. */
export async function load(url: string, context: object, next: NextLoad<Promise<Loaded>>): Promise<Loaded> {
  return correct(await next(url, context));
}

function loadSync(url: string, context: object, next: NextLoad<Loaded>): Loaded {
  return correct(next(url, context));
}

function correct(loaded: Loaded): Loaded {
  // Without a source, Node loads CommonJS by its own loader, whose require() takes ES modules. TypeScript is compiled there too.
  if (loaded.format?.startsWith('commonjs')) return { ...loaded, format: 'commonjs', source: null };
  const { source } = loaded;
  const code = source instanceof Uint8Array ? Buffer.from(source).toString() : source;
  return typeof code === 'string' ? { ...loaded, source: resetErrors(code) } : loaded;
}

interface HooksApi {
  readonly registerHooks?: (hooks: { readonly load: typeof loadSync }) => void;
}
interface CommonJs {
  _compile(code: string, path: string, ...rest: unknown[]): unknown;
}

// Node 20 has only hooks on their own thread.
const { registerHooks } = nodeModule as HooksApi;
if (registerHooks !== undefined) registerHooks({ load: loadSync });
else if (isMainThread) nodeModule.register(import.meta.url);

const commonJs = Module.prototype as unknown as CommonJs;
const { _compile: compile } = commonJs;
commonJs._compile = function (this: CommonJs, code, path, ...rest) {
  return compile.call(this, resetErrors(code), path, ...rest);
};
