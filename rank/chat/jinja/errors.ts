/** Errors of chat templates. */

/** What failed: the template, which the default blames, or messages that it refuses with `raise_exception`. */
export type TemplateFault = 'messages' | 'template';

/** Ends the rendering of a template. */
export class TemplateError extends Error {
  readonly fault: TemplateFault;
  /** Line of the innermost statement that failed, from 1; null for one of its syntax. */
  line: number | null = null;

  constructor(message: string, fault: TemplateFault = 'template') {
    super(message);
    this.fault = fault;
  }
}

/** Error of the syntax at a line, from 1. */
export function syntaxError(message: string, line: number): TemplateError {
  return new TemplateError(`it cannot be parsed: line ${line}: ${message}`);
}
