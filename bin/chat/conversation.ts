/** A conversation: a system message, and turns of user and assistant in their order. */
import type { ChatMessage } from '../../rank/index.ts';

/** `messages` after a system message. */
export function systemFirst(system: string | null, messages: readonly ChatMessage[]): ChatMessage[] {
  return system === null ? [...messages] : [{ role: 'system', content: system }, ...messages];
}

export class Conversation {
  #system: string | null;
  #turns: ChatMessage[] = [];

  constructor(system: string | null) {
    this.#system = system;
  }

  get messages(): readonly ChatMessage[] {
    return systemFirst(this.#system, this.#turns);
  }

  get numTurns(): number {
    return this.#turns.filter(({ role }) => role === 'user').length;
  }

  /** Null removes it. Turns stay. */
  setSystem(text: string | null): void {
    this.#system = text;
  }

  add(...messages: readonly ChatMessage[]): void {
    this.#turns.push(...messages);
  }

  /** The system message stays. */
  reset(): void {
    this.#turns = [];
  }

  replace(messages: readonly ChatMessage[]): void {
    const [first, ...others] = messages;
    const isSystem = first?.role === 'system' && typeof first.content === 'string';
    this.#system = isSystem ? (first.content as string) : null;
    this.#turns = isSystem ? others : [...messages];
  }
}
