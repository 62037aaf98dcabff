/** What Jinja refuses in a template that it has parsed, before any of it runs. */
import { syntaxError, type TemplateError } from './errors.ts';
import { filterNames, unknownFilter } from './filters.ts';
import { type CallBlock, type Macro, type Node, type Statement, walk } from './nodes.ts';
import { testNames, unknownTest } from './tests.ts';

interface Place {
  /** Whether `break` and `continue` have a loop to go to. */
  readonly isInLoop: boolean;
  /** Whether unknown filters and tests wait until they run: a template may ask whether there is one. */
  readonly isConditional: boolean;
  readonly isTop: boolean;
}

/** @throws TemplateError naming the statement that is wrong. */
export function checkTemplate(body: readonly Statement[]): void {
  checkBody(body, { isInLoop: false, isConditional: false, isTop: true }, new Set());
}

function checkBody(body: readonly Statement[], place: Place, blocks: Set<string>): void {
  for (const statement of body) checkStatement(statement, place, blocks);
}

function checkStatement(node: Statement, place: Place, blocks: Set<string>): void {
  const inner = { ...place, isConditional: false, isTop: false };
  const inFunction = { ...inner, isInLoop: false };
  const check = (child: Node | null, isConditional = place.isConditional) => {
    if (child !== null) checkExpression(child, node.line, isConditional);
  };
  switch (node.type) {
    case 'If':
      for (const [test, body] of node.branches) {
        check(test, true);
        checkBody(body, { ...place, isConditional: true }, blocks);
      }
      return checkBody(node.otherwise, { ...place, isConditional: true }, blocks);
    case 'For':
      if (assignsToLoop(node)) throw syntaxError("'loop' cannot be assigned to inside a for loop", node.line);
      check(node.iterable);
      check(node.test, false);
      checkBody(node.body, { ...inner, isInLoop: true }, blocks);
      return checkBody(node.otherwise, inner, blocks);
    case 'Macro':
    case 'CallBlock':
      checkSignature(node);
      for (const value of node.defaults) check(value, false);
      if (node.type === 'CallBlock') check(node.call);
      return checkBody(node.body, inFunction, blocks);
    case 'Block':
      if (blocks.has(node.name)) throw syntaxError(`block '${node.name}' defined twice`, node.line);
      blocks.add(node.name);
      return checkBody(node.body, inFunction, blocks);
    case 'Break':
    case 'Continue':
      if (!place.isInLoop) throw syntaxError(`'${node.type.toLowerCase()}' outside of a loop`, node.line);
      return;
    case 'Load':
      if (node.tag === 'extends' && !place.isTop) throw syntaxError("'extends' inside of another statement", node.line);
      return;
    case 'Text':
      return;
    default:
      return checkOther(node, node.type === 'Generation' ? inFunction : inner, check, blocks);
  }
}

type OtherStatement = Extract<Statement, { type: 'Print' | 'Set' | 'SetBlock' | 'FilterBlock' | 'With' | 'Autoescape' | 'Generation' }>;

function checkOther(
  node: OtherStatement,
  inner: Place,
  check: (child: Node | null, isConditional?: boolean) => void,
  blocks: Set<string>,
): void {
  if (node.type === 'Print' || node.type === 'Set' || node.type === 'Autoescape') check(node.value);
  if (node.type === 'SetBlock' || node.type === 'FilterBlock') check(node.filter, false);
  if (node.type === 'With') for (const [, value] of node.targets) check(value);
  if ('body' in node) checkBody(node.body, inner, blocks);
}

function checkSignature({ parameters, defaults, body, line }: Macro | CallBlock): void {
  if (new Set(parameters).size < parameters.length) throw syntaxError('a parameter is named twice', line);
  const at = parameters.indexOf('caller');
  if (at < 0 || at >= parameters.length - defaults.length) return;
  const readsCaller = body.some((statement) => [...walk(statement)].some((node) => node.type === 'Name' && node.name === 'caller'));
  if (readsCaller) throw syntaxError("a parameter 'caller' needs a default", line);
}

function assignsToLoop(loop: Statement): boolean {
  for (const node of walk(loop)) {
    const targets = node.type === 'For' || node.type === 'Set' || node.type === 'SetBlock' ? [...walk(node.target)] : [];
    if (targets.some((target) => target.type === 'Name' && target.name === 'loop')) return true;
  }
  return false;
}

function checkExpression(node: Node, line: number, isConditional: boolean): void {
  const open: [Node, boolean][] = [[node, isConditional]];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [one, waits] = next;
    const error = waits ? null : unknownName(one);
    if (error !== null) {
      error.line = line;
      throw error;
    }
    const below = waits || one.type === 'Condition';
    if (!below) for (const child of childrenOf(one)) open.push([child, false]);
  }
}

function childrenOf(node: Node): Node[] {
  const children: Node[] = [];
  const collect = (value: unknown): void => {
    if (Array.isArray(value)) value.forEach(collect);
    else if (typeof value === 'object' && value !== null) {
      if ('type' in value) children.push(value as Node);
      else if ('positional' in value) Object.values(value).forEach(collect);
    }
  };
  Object.values(node).forEach(collect);
  return children;
}

function unknownName(node: Node): TemplateError | null {
  if (node.type === 'Filter' && !filterNames.has(node.name)) return unknownFilter(node.name);
  return node.type === 'Test' && !testNames.has(node.name) ? unknownTest(node.name) : null;
}
