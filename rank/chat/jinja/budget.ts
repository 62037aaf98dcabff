/** Limits on the work of a template, which bound the time and memory of a hostile one. */
import { TemplateError } from './errors.ts';

/** Limits of one rendering. */
export interface TemplateLimits {
  /** Max nodes evaluated plus values visited. */
  readonly maxSteps: number;
  /** Max UTF-16 code units of all intermediate strings. */
  readonly maxWorkChars: number;
  /** Max UTF-16 code units of the result. */
  readonly maxOutputChars: number;
}

/** Charges the work of a rendering against its limits. */
export class Budget {
  readonly limits: TemplateLimits;
  #steps = 0;
  #chars = 0;

  constructor(limits: TemplateLimits) {
    this.limits = limits;
  }

  /** Charges steps. @throws TemplateError when they exceed the limit. */
  step(count = 1): void {
    this.#steps += count;
    if (this.#steps > this.limits.maxSteps) throw new TemplateError(`more than ${this.limits.maxSteps} steps`, 'template');
  }

  /** Charges a string before it is made. @throws TemplateError when the total exceeds the limit. */
  reserve(chars: number): void {
    this.#chars += chars;
    if (!(this.#chars <= this.limits.maxWorkChars)) throw new TemplateError(`more than ${this.limits.maxWorkChars} characters`, 'template');
  }

  /** Charges a string that was made, and returns it. */
  take(text: string): string {
    this.reserve(text.length);
    return text;
  }
}
