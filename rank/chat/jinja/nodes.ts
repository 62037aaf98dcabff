/** The syntax tree of a template. */
import type { Value } from './values.ts';

/** Arguments of a call, a filter or a test. */
export interface ArgumentNodes {
  readonly positional: readonly Expression[];
  readonly keywords: readonly (readonly [name: string, value: Expression])[];
  /** `*args`. */
  readonly star: Expression | null;
  /** `**kwargs`. */
  readonly doubleStar: Expression | null;
}

export interface Name {
  readonly type: 'Name';
  readonly name: string;
}

/** `name.attribute` as target of an assignment. */
export interface NamespaceTarget {
  readonly type: 'NamespaceTarget';
  readonly name: string;
  readonly attribute: string;
}

export interface TupleNode {
  readonly type: 'Tuple';
  readonly items: readonly Expression[];
}

export interface Call {
  readonly type: 'Call';
  readonly callee: Expression;
  readonly args: ArgumentNodes;
}

/** A filter; its operand is null where it takes the text of a block. */
export interface Filter {
  readonly type: 'Filter';
  readonly operand: Expression | null;
  readonly name: string;
  readonly args: ArgumentNodes;
}

export interface Slice {
  readonly type: 'Slice';
  /** Start, stop and step. */
  readonly bounds: readonly (Expression | null)[];
}

export type Expression =
  | Name
  | NamespaceTarget
  | TupleNode
  | Call
  | Filter
  | Slice
  | { readonly type: 'Constant'; readonly value: Value }
  | { readonly type: 'List'; readonly items: readonly Expression[] }
  | { readonly type: 'Dict'; readonly entries: readonly (readonly [key: Expression, value: Expression])[] }
  | { readonly type: 'Condition'; readonly test: Expression; readonly then: Expression; readonly otherwise: Expression | null }
  | { readonly type: 'And' | 'Or'; readonly left: Expression; readonly right: Expression }
  | { readonly type: 'Not'; readonly operand: Expression }
  | { readonly type: 'Unary'; readonly operator: string; readonly operand: Expression }
  | { readonly type: 'Binary'; readonly operator: string; readonly left: Expression; readonly right: Expression }
  | { readonly type: 'Concat'; readonly items: readonly Expression[] }
  | { readonly type: 'Compare'; readonly left: Expression; readonly rest: readonly (readonly [operator: string, right: Expression])[] }
  | { readonly type: 'Attribute'; readonly object: Expression; readonly name: string }
  | { readonly type: 'Item'; readonly object: Expression; readonly key: Expression }
  | { readonly type: 'Test'; readonly operand: Expression; readonly name: string; readonly args: ArgumentNodes };

export type Target = Name | NamespaceTarget | TupleNode;

/** Parameters of a macro; those without a default come first. */
export interface Signature {
  readonly parameters: readonly string[];
  readonly defaults: readonly Expression[];
}

export interface For {
  readonly type: 'For';
  readonly line: number;
  readonly target: Target;
  readonly iterable: Expression;
  readonly test: Expression | null;
  readonly isRecursive: boolean;
  readonly body: readonly Statement[];
  readonly otherwise: readonly Statement[];
}

export interface Macro extends Signature {
  readonly type: 'Macro';
  readonly line: number;
  readonly name: string;
  readonly body: readonly Statement[];
}

export interface CallBlock extends Signature {
  readonly type: 'CallBlock';
  readonly line: number;
  readonly call: Call;
  readonly body: readonly Statement[];
}

export interface Block {
  readonly type: 'Block';
  readonly line: number;
  readonly name: string;
  readonly isScoped: boolean;
  readonly isRequired: boolean;
  readonly body: readonly Statement[];
}

export type Statement =
  | For
  | Macro
  | CallBlock
  | Block
  | { readonly type: 'Text'; readonly line: number; readonly text: string }
  | { readonly type: 'Print'; readonly line: number; readonly value: Expression }
  | {
      readonly type: 'If';
      readonly line: number;
      readonly branches: readonly (readonly [test: Expression, body: readonly Statement[]])[];
      readonly otherwise: readonly Statement[];
    }
  | { readonly type: 'Set'; readonly line: number; readonly target: Target; readonly value: Expression }
  | {
      readonly type: 'SetBlock';
      readonly line: number;
      readonly target: Target;
      readonly filter: Filter | null;
      readonly body: readonly Statement[];
    }
  | { readonly type: 'FilterBlock'; readonly line: number; readonly filter: Filter; readonly body: readonly Statement[] }
  | {
      readonly type: 'With';
      readonly line: number;
      readonly targets: readonly (readonly [Target, Expression])[];
      readonly body: readonly Statement[];
    }
  | { readonly type: 'Autoescape'; readonly line: number; readonly value: Expression; readonly body: readonly Statement[] }
  | { readonly type: 'Generation'; readonly line: number; readonly body: readonly Statement[] }
  /** `include`, `import`, `from` or `extends`, which find no other template. */
  | { readonly type: 'Load'; readonly line: number; readonly tag: string }
  | { readonly type: 'Break' | 'Continue'; readonly line: number };

/** Any part of the tree. */
export type Node = Expression | Statement;

/** `node` and every node below it, in the order of the source; what is below a node that `isLeaf` names is left out. */
export function* walk(node: Node, isLeaf: (node: Node) => boolean = () => false): Generator<Node, void, undefined> {
  const open: Node[] = [node];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    yield next;
    if (!isLeaf(next)) open.push(...Object.values(next).flatMap(nodesIn).reverse());
  }
}

function nodesIn(value: unknown): Node[] {
  if (Array.isArray(value)) return value.flatMap(nodesIn);
  if (typeof value !== 'object' || value === null) return [];
  if ('type' in value) return [value as Node];
  return 'positional' in value ? Object.values(value).flatMap(nodesIn) : [];
}
