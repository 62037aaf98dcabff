/** Errors of chat templates. */

/** Who is at fault: the caller's messages, or the template. */
export type TemplateFault = 'messages' | 'template';

/** Ends the rendering of a template. */
export class TemplateError extends Error {
  readonly fault: TemplateFault;

  constructor(message: string, fault: TemplateFault = 'messages') {
    super(message);
    this.fault = fault;
  }
}
