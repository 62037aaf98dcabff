/** Limits on a template's work, which bound the time and memory of a hostile one. */
import { TemplateError } from './errors.ts';

/** The bounds of one rendering. */
export interface TemplateLimits {
  /** Max nodes evaluated plus values visited. */
  readonly maxSteps: number;
  /** Max UTF-16 code units of all intermediate strings. */
  readonly maxWorkChars: number;
  /** Max UTF-16 code units of the result. */
  readonly maxOutputChars: number;
}

/** Counts a rendering's work against its limits. */
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
