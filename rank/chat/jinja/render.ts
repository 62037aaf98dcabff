/**
 * Chat templates, parsed and evaluated as jinja2 3.1.6 does in the environment that Transformers gives them.
 *
 * It is code of its own, as no package for JavaScript is faithful: of 1454 snippets in test/fixtures/jinja, 609 come out
 * the same from @huggingface/jinja 0.5.11, 688 from minijinja-js 2.11.0 and 467 from nunjucks 3.2.4. Each of them also
 * renders hundreds to another text without an error, e.g. `-7 % 3`, `1e-5`, `true` and the truth of a generator.
 */
import { Budget, type TemplateLimits } from './budget.ts';
import { checkTemplate } from './check.ts';
import { TemplateError } from './errors.ts';
import { Evaluator } from './evaluate.ts';
import { makeGlobals } from './globals.ts';
import { type Block, type Expression, type Node, type Statement, walk } from './nodes.ts';
import { parse } from './parser.ts';
import { Scope } from './scope.ts';
import { symbolsOf } from './symbols.ts';
import { fromJson } from './values.ts';

/** A parsed template. */
export interface CompiledTemplate {
  readonly body: readonly Statement[];
  readonly blocks: ReadonlyMap<string, Block>;
  /** Whether it iterates over the parts of a message's content; otherwise content is passed as one text. */
  readonly readsParts: boolean;
}

/** @throws TemplateError for an invalid template. */
export function compileTemplate(source: string): CompiledTemplate {
  const body = parse(source);
  checkTemplate(body);
  const nodes = body.flatMap((statement) => [...walk(statement)]);
  const blocks = nodes.filter((node): node is Block => node.type === 'Block').map((block) => [block.name, block] as const);
  return { body, blocks: new Map(blocks), readsParts: readsParts(nodes) };
}

/**
 * Renders with `variables`, a JSON object.
 * @throws TemplateError when the template refuses them, fails or exceeds a limit.
 */
export function renderTemplate({ body, blocks }: CompiledTemplate, variables: object, limits: TemplateLimits, now = new Date()): string {
  const budget = new Budget(limits);
  const context = new Scope();
  for (const [name, value] of makeGlobals(now, budget)) context.set(name, value);
  for (const [name, value] of Object.entries(variables)) context.set(name, fromJson(value));
  const root = new Scope(context, symbolsOf(body));
  const text = new Evaluator(root, blocks, budget).render(body, root);
  if (text.length > limits.maxOutputChars) throw new TemplateError(`more than ${limits.maxOutputChars} characters of text`);
  return text;
}

/**
 * Whether a loop iterates over the content of a message: `message.content`, `message['content']`, or a name set to it.
 * vLLM tells templates that take parts from those that take text in the same way.
 */
function readsParts(nodes: readonly Node[]): boolean {
  const names = new Set<string>();
  const isContent = (node: Expression | null): boolean => {
    if (node === null) return false;
    if (node.type === 'Name') return names.has(node.name);
    if (node.type === 'Filter') return isContent(node.operand);
    if (node.type === 'Condition') return node.otherwise === null && isContent(node.then);
    if (node.type === 'Attribute') return node.name === 'content';
    return node.type === 'Item' && node.key.type === 'Constant' && node.key.value === 'content';
  };
  for (const node of nodes) {
    if (node.type === 'Set' && node.target.type === 'Name' && isContent(node.value)) names.add(node.target.name);
  }
  return nodes.some((node) => node.type === 'For' && isContent(node.iterable));
}
