/** Starts threads, from the built package or from a checkout's sources. */
import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * Starts a thread that gets neither the flags nor the environment of the process. In a checkout it registers the
 * TypeScript loader itself, as not every Node lets threads inherit it.
 *
 * @param path - of the thread's module, without extension, relative to `from`
 * @param from - `import.meta.url` of the caller
 */
export function startThread(path: string, from: string, options: Pick<WorkerOptions, 'name' | 'resourceLimits' | 'workerData'>): Worker {
  const isSource = import.meta.url.endsWith('.ts');
  const module = new URL(`${path}${isSource ? '.ts' : '.js'}`, from);
  const own = { ...options, execArgv: [], env: {} };
  if (!isSource) return new Worker(module, own);
  const loader = import.meta.resolve('tsx/esm/api');
  const start = `import(${JSON.stringify(loader)}).then(({ register }) => { register(); return import(${JSON.stringify(module.href)}); })`;
  return new Worker(start, { ...own, eval: true });
}
