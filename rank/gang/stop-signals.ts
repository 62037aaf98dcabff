/** Signals that ask a process to stop, and what they do when nobody else listens. */

const stopSignals: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP'];

/**
 * Calls `decide` on every signal that asks this process to stop. `default` = what the signal does without us: the user's
 * own listeners run, and where there are none the process ends by the signal.
 */
export function onSignals(decide: () => 'handled' | 'default'): void {
  for (const signal of stopSignals) {
    const listener = () => {
      if (decide() === 'handled' || process.listenerCount(signal) > 1) return;
      process.off(signal, listener);
      process.kill(process.pid, signal);
    };
    process.on(signal, listener);
  }
}
