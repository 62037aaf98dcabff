/** An unbounded queue between one producer and one consumer. */

/** One producer, one consumer. Values pushed before an error are delivered first. */
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

  /** The next value, as soon as there is one. Rejects with the error of `fail` when no value is left. */
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
