/** The nodes of `@huggingface/jinja`'s syntax tree that are evaluated here. */

interface Token {
  readonly value: string;
}

export interface Identifier {
  readonly type: 'Identifier';
  readonly value: string;
}

export interface KeywordArgument {
  readonly type: 'KeywordArgumentExpression';
  readonly key: Identifier;
  readonly value: Node;
}

/** A parameter of a macro, with or without a default. */
export type Parameter = Identifier | KeywordArgument;

export interface CallExpression {
  readonly type: 'CallExpression';
  readonly callee: Node;
  readonly args: readonly Node[];
}

export interface SliceExpression {
  readonly type: 'SliceExpression';
  readonly start: Node | undefined;
  readonly stop: Node | undefined;
  readonly step: Node | undefined;
}

export interface TupleLiteral {
  readonly type: 'TupleLiteral';
  readonly value: readonly Node[];
}

export interface SelectExpression {
  readonly type: 'SelectExpression';
  readonly lhs: Node;
  readonly test: Node;
}

export interface ForStatement {
  readonly type: 'For';
  readonly loopvar: Identifier | TupleLiteral;
  readonly iterable: Node;
  readonly body: readonly Node[];
  readonly defaultBlock: readonly Node[];
}

export interface SetStatement {
  readonly type: 'Set';
  readonly assignee: Node;
  readonly value: Node | null;
  readonly body: readonly Node[];
}

export interface MacroStatement {
  readonly type: 'Macro';
  readonly name: Identifier;
  readonly args: readonly Parameter[];
  readonly body: readonly Node[];
}

export interface CallStatement {
  readonly type: 'CallStatement';
  readonly call: CallExpression;
  readonly callerArgs: readonly Parameter[] | null;
  readonly body: readonly Node[];
}

export interface BinaryExpression {
  readonly type: 'BinaryExpression';
  readonly operator: Token;
  readonly left: Node;
  readonly right: Node;
}

export interface MemberExpression {
  readonly type: 'MemberExpression';
  readonly object: Node;
  readonly property: Node;
  /** Whether it is written `object[property]`. */
  readonly computed: boolean;
}

/** A filter by its name, with or without arguments. */
export type FilterNode = Identifier | CallExpression;

export type Node =
  | Identifier
  | KeywordArgument
  | CallExpression
  | SliceExpression
  | TupleLiteral
  | SelectExpression
  | ForStatement
  | SetStatement
  | MacroStatement
  | CallStatement
  | BinaryExpression
  | MemberExpression
  | { readonly type: 'Program'; readonly body: readonly Node[] }
  | { readonly type: 'If'; readonly test: Node; readonly body: readonly Node[]; readonly alternate: readonly Node[] }
  | { readonly type: 'FilterStatement'; readonly filter: FilterNode; readonly body: readonly Node[] }
  | { readonly type: 'Break' | 'Continue' | 'Comment' }
  | { readonly type: 'IntegerLiteral' | 'FloatLiteral'; readonly value: number }
  | { readonly type: 'StringLiteral'; readonly value: string }
  | { readonly type: 'ArrayLiteral'; readonly value: readonly Node[] }
  | { readonly type: 'ObjectLiteral'; readonly value: ReadonlyMap<Node, Node> }
  | { readonly type: 'FilterExpression'; readonly operand: Node; readonly filter: FilterNode }
  | { readonly type: 'TestExpression'; readonly operand: Node; readonly negate: boolean; readonly test: Identifier }
  | { readonly type: 'UnaryExpression'; readonly operator: Token; readonly argument: Node }
  | { readonly type: 'Ternary'; readonly condition: Node; readonly trueExpr: Node; readonly falseExpr: Node }
  | { readonly type: 'SpreadExpression' | 'KeywordSpreadExpression'; readonly argument: Node };

/** `node` and every node below it. */
export function* walk(node: Node): Generator<Node, void, undefined> {
  const open: Node[] = [node];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    yield next;
    for (const child of Object.values(next).flatMap(children)) open.push(child);
  }
}

function children(value: unknown): Node[] {
  if (Array.isArray(value)) return value.flatMap(children);
  if (value instanceof Map) return [...value].flat() as Node[];
  return typeof value === 'object' && value !== null && 'type' in value ? [value as Node] : [];
}
