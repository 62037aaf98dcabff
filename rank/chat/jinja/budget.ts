/** How much a template may compute, so that a hostile one ends soon and never asks for much memory. */
import { TemplateError } from './errors.ts';

/** The bounds of one rendering. */
export interface TemplateLimits {
  /** Nodes of the template that are evaluated, and values that are looked at. */
  readonly maxSteps: number;
  /** UTF-16 code units of all strings made on the way. */
  readonly maxWorkChars: number;
  /** UTF-16 code units of the result. */
  readonly maxOutputChars: number;
}

/** What is left of them. */
export class Budget {
  readonly limits: TemplateLimits;
  #steps = 0;
  #chars = 0;

  constructor(limits: TemplateLimits) {
    this.limits = limits;
  }

  /** Counts work. @throws TemplateError when it is too much. */
  step(count = 1): void {
    this.#steps += count;
    if (this.#steps > this.limits.maxSteps) throw new TemplateError(`more than ${this.limits.maxSteps} steps`, 'template');
  }

  /** Counts a string that is about to be made. @throws TemplateError when it is too much. */
  reserve(chars: number): void {
    this.#chars += chars;
    if (!(this.#chars <= this.limits.maxWorkChars)) throw new TemplateError(`more than ${this.limits.maxWorkChars} characters`, 'template');
  }

  /** Counts a string that was made. */
  take(text: string): string {
    this.reserve(text.length);
    return text;
  }
}
