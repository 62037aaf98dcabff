/**
 * Chat templates: parsed by `@huggingface/jinja`, evaluated with the variables and functions that Transformers
 * provides.
 */
import { parse, tokenize } from '@huggingface/jinja';
import { Budget, type TemplateLimits } from './budget.ts';
import { TemplateError } from './errors.ts';
import { Evaluator, Scope } from './evaluate.ts';
import { type ForStatement, type Node, walk } from './nodes.ts';
import { strftime } from './strftime.ts';
import { bind } from './text-methods.ts';
import { type Arguments, Callable, fromJson, iterate, Namespace, toText, type Value } from './values.ts';

/** A parsed template. */
export interface CompiledTemplate {
  readonly body: readonly Node[];
  /** Whether it iterates over the parts of a message's content; otherwise content is passed as one text. */
  readonly readsParts: boolean;
}

/** Max length of a `range`, as in Jinja's sandbox. */
const maxRange = 100_000;

/** @throws TemplateError for an invalid template. */
export function compileTemplate(source: string): CompiledTemplate {
  try {
    const program = parse(tokenize(source.replace(/\r\n?/g, '\n'), { lstrip_blocks: true, trim_blocks: true })) as unknown as Extract<
      Node,
      { type: 'Program' }
    >;
    return { body: program.body, readsParts: readsParts(program) };
  } catch (error) {
    throw new TemplateError(`it cannot be parsed: ${(error as Error).message}`, 'template');
  }
}

/**
 * Renders with `variables`, a JSON object.
 * @throws TemplateError when the template refuses them, fails or exceeds a limit.
 */
export function renderTemplate({ body }: CompiledTemplate, variables: object, limits: TemplateLimits, now = new Date()): string {
  const budget = new Budget(limits);
  const globals = new Scope();
  const define = (name: string, call: (args: Arguments) => Value) => globals.set(name, new Callable(call));
  for (const [name, value] of [
    ['true', true],
    ['false', false],
    ['none', null],
  ] as const) {
    globals.set(name, value);
    globals.set(name.charAt(0).toUpperCase() + name.slice(1), value);
  }
  define('range', (args) => range(args, budget));
  define('namespace', namespace);
  define('dict', ({ keywords }) => new Map(keywords));
  define('raise_exception', (args) => {
    throw new TemplateError(toText(bind('raise_exception', ['message'], 1, args)[0], budget));
  });
  define('strftime_now', (args) => strftime(now, toText(bind('strftime_now', ['format'], 1, args)[0], budget)));
  const scope = new Scope(globals);
  for (const [name, value] of Object.entries(variables)) scope.set(name, fromJson(value));
  const text = new Evaluator(budget).render(body, scope);
  if (text.length > limits.maxOutputChars) throw new TemplateError(`more than ${limits.maxOutputChars} characters of text`);
  return text;
}

function range(args: Arguments, budget: Budget): Value {
  const bounds = bind('range', ['start', 'stop', 'step'], 1, args).map((bound) => {
    if (typeof bound !== 'number') throw new TemplateError('range() takes integers');
    return bound;
  });
  const [start, stop, step] = bounds.length === 1 ? [0, bounds[0] ?? 0, 1] : [bounds[0] ?? 0, bounds[1] ?? 0, bounds[2] ?? 1];
  if (step === 0) throw new TemplateError('range() arg 3 must not be zero');
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > maxRange) throw new TemplateError(`a range of more than ${maxRange}`, 'template');
  budget.step(length);
  return Array.from({ length }, (_, i) => start + i * step);
}

function namespace({ positional, keywords }: Arguments): Value {
  const [source] = positional;
  const entries = source instanceof Map ? [...source] : iterate(source).map((pair) => iterate(pair) as [Value, Value]);
  return new Namespace(new Map([...entries, ...keywords]));
}

/**
 * Whether a loop iterates over the content of a message: `message.content`, `message['content']`, or a name set to it.
 * vLLM tells templates that take parts from those that take text in the same way.
 */
function readsParts(program: Node): boolean {
  const nodes = [...walk(program)];
  const names = new Set<string>();
  const isContent = (node: Node): boolean => {
    if (node.type === 'Identifier') return names.has(node.value);
    if (node.type === 'FilterExpression') return isContent(node.operand);
    if (node.type === 'SelectExpression') return isContent(node.lhs);
    if (node.type !== 'MemberExpression') return false;
    const { property } = node;
    return (property.type === 'Identifier' || property.type === 'StringLiteral') && property.value === 'content';
  };
  for (const node of nodes) {
    if (node.type === 'Set' && node.assignee.type === 'Identifier' && node.value !== null && isContent(node.value))
      names.add(node.assignee.value);
  }
  return nodes.filter((node): node is ForStatement => node.type === 'For').some(({ iterable }) => isContent(iterable));
}
