/** Values that are produced at one pace and iterated at another. */

/** One producer, one consumer. What was pushed before an error is still delivered. */
export class AsyncQueue<T> {
  readonly #values: T[] = [];
  #error: Error | null = null;
  #wake: () => void = () => {};

  push(value: T): void {
    this.#values.push(value);
    this.#wake();
  }

  fail(error: Error): void {
    this.#error ??= error;
    this.#wake();
  }

  /** The next value, when there is one. */
  async next(): Promise<T> {
    while (this.#values.length === 0) {
      if (this.#error !== null) throw this.#error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#values.shift() as T;
  }
}
