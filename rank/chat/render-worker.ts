/** The thread that renders chat templates, so that any template can be terminated. */
import { parentPort } from 'node:worker_threads';
import type { TemplateLimits } from './jinja/budget.ts';
import { TemplateError, type TemplateFault } from './jinja/errors.ts';
import { type CompiledTemplate, compileTemplate, renderTemplate } from './jinja/render.ts';

/** One rendering. */
export interface RenderJob {
  readonly template: string;
  /** A JSON object with `messages` and the template's other variables. */
  readonly variables: string;
  readonly limits: TemplateLimits;
}

/** Replies; the first one is `ready`. */
export type RenderReply =
  | { readonly type: 'ready' }
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'error'; readonly fault: TemplateFault; readonly message: string };

/** Max cached templates: parsing costs more than rendering, and a process uses few. */
const maxNumCompiled = 16;
const compiled = new Map<string, CompiledTemplate>();

function compile(template: string): CompiledTemplate {
  const known = compiled.get(template);
  if (known !== undefined) return known;
  const [oldest] = compiled.keys();
  if (compiled.size >= maxNumCompiled && oldest !== undefined) compiled.delete(oldest);
  const fresh = compileTemplate(template);
  compiled.set(template, fresh);
  return fresh;
}

interface Message {
  readonly content?: string | readonly { readonly text: string }[] | null;
}

/**
 * Joins the parts of a message's content by newlines, as vLLM does, for a template that does not iterate over parts.
 */
function joinParts(message: Message): Message {
  return Array.isArray(message.content) ? { ...message, content: message.content.map(({ text }) => text).join('\n') } : message;
}

function render({ template, variables, limits }: RenderJob): RenderReply {
  try {
    const parsed = compile(template);
    const given = JSON.parse(variables) as { readonly messages: readonly Message[] };
    const messages = parsed.readsParts ? given.messages : given.messages.map(joinParts);
    return { type: 'text', text: renderTemplate(parsed, { ...given, messages }, limits) };
  } catch (error) {
    if (error instanceof TemplateError) {
      const { fault, message, line } = error;
      return { type: 'error', fault, message: fault === 'messages' || line === null ? message : `line ${line}: ${message}` };
    }
    // Stack overflow, or a string that V8 refuses to make.
    return { type: 'error', fault: 'template', message: (error as Error).message };
  }
}

const port = parentPort;
port?.on('message', (job: RenderJob) => port.postMessage(render(job)));
port?.postMessage({ type: 'ready' } satisfies RenderReply);
