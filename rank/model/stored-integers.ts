/** Matrices that are stored as integers: which tensors stand for `X.weight`, checked against config.json. */
import { closeSync, openSync } from 'node:fs';
import { describeJson, NdsError } from '../../protocol/errors.ts';
import type { IntegerLayout, StoredIntegers } from '../program-spec.ts';
import type { StoredTensor } from './checkpoint/safetensors.ts';
import type { IntegerScheme, Presence } from './config/integer-quantization.ts';
import type { Quantization } from './config/quantization.ts';
import { readExactly } from './read-exactly.ts';
import { describeTensor, findDtype } from './stored-types.ts';

/** Path of a file, and an offset in it. */
interface Place {
  readonly path: string;
  readonly byteOffset: number;
}

/** As native's, with the paths of files. */
export type TensorIntegers = Omit<StoredIntegers, 'scales' | 'zeros' | 'groupIndex'> & {
  readonly scales: Place & Omit<StoredIntegers['scales'], 'file'>;
  readonly zeros: Place | null;
  readonly groupIndex: Place | null;
  /** The group of each column; `null` where columns are in order of their groups. */
  readonly groups: Int32Array | null;
};

/** The tensors that a matrix consists of. */
export interface IntegerTensor extends Place {
  readonly integers: TensorIntegers;
  /** Names of all of them. Those for quantized activations are not read. */
  readonly names: readonly string[];
}

type Stored = ReadonlyMap<string, StoredTensor>;

interface LayoutNames {
  readonly integers: string;
  readonly dtype: string;
  readonly scales: string;
  readonly zeros: string;
  readonly groupIndex: string;
}

const compressed = { scales: 'weight_scale', zeros: 'weight_zero_point', groupIndex: 'weight_g_idx' };
const packedWords = { integers: 'qweight', dtype: 'I32', scales: 'scales', zeros: 'qzeros', groupIndex: 'g_idx' };
const namesOf: Readonly<Record<IntegerLayout, LayoutNames>> = {
  bytes: { integers: 'weight', dtype: 'I8', ...compressed },
  rows: { integers: 'weight_packed', dtype: 'I32', ...compressed },
  awq: packedWords,
  gptq: packedWords,
};

/** The tensor of integers that is stored for `X.weight`, if one is. @throws NdsError `ERR_TENSOR` for two. */
export function findIntegers(name: string, stored: Stored): StoredTensor | undefined {
  const base = moduleOf(name);
  if (base === null) return undefined;
  const weight = stored.get(name);
  if (weight?.dtype === 'I8') return weight;
  const packed = [stored.get(`${base}.weight_packed`), stored.get(`${base}.qweight`)];
  const [first, second] = [...packed, weight].filter((one) => one !== undefined);
  if (first === undefined || first === weight) return undefined;
  if (second !== undefined) throw bad(`one of ${describeTensor(first)} and ${describeJson(second.name)}`, 'both');
  return first;
}

/**
 * The matrix `name` `[numRows, numCols]` whose integers are in `tensor`.
 * @throws NdsError `ERR_TENSOR` for one that config.json does not ask for, and for tensors that do not fit it.
 */
export function readIntegers(
  name: string,
  [numRows, numCols]: readonly [number, number],
  tensor: StoredTensor,
  stored: Stored,
  quantization: Quantization | null,
): IntegerTensor {
  const what = describeTensor(tensor);
  const base = moduleOf(name) as string;
  const suffix = tensor.name.slice(base.length + 1);
  const schemes = quantization?.integers.filter(({ layout }) => namesOf[layout].integers === suffix) ?? [];
  if (schemes.length === 0) throw bad(`a quantization_config in config.json for ${what}`, quantization === null ? 'none' : 'another');
  if (quantization?.keptModules.some((pattern) => pattern.test(base)))
    throw bad(`module ${describeJson(base)} without integers, as config.json has it,`, what);
  const readers = schemes.map((scheme) => new SchemeReader(base, numRows, numCols, tensor, stored, scheme));
  // Of several schemes, the first that fits; errors are those of the last.
  for (const reader of readers.slice(0, -1)) {
    try {
      return reader.read();
    } catch (error) {
      if (!(error instanceof NdsError)) throw error;
    }
  }
  return (readers.at(-1) as SchemeReader).read();
}

/** Checks the tensors of one matrix against one scheme. */
class SchemeReader {
  readonly #base: string;
  readonly #numRows: number;
  readonly #numCols: number;
  readonly #tensor: StoredTensor;
  readonly #stored: Stored;
  readonly #scheme: IntegerScheme;

  constructor(base: string, numRows: number, numCols: number, tensor: StoredTensor, stored: Stored, scheme: IntegerScheme) {
    this.#base = base;
    this.#numRows = numRows;
    this.#numCols = numCols;
    this.#tensor = tensor;
    this.#stored = stored;
    this.#scheme = scheme;
  }

  read(): IntegerTensor {
    const { layout, bits, groupSize, isPerTensor, zeroOffset, isSymmetric } = this.#scheme;
    const [numRows, numCols, names] = [this.#numRows, this.#numCols, namesOf[layout]];
    const perWord = 32 / bits;
    const columns = groupSize ?? numCols;
    const numGroups = Math.ceil(numCols / columns);
    const isInputMajor = layout === 'awq' || layout === 'gptq';
    if (isInputMajor && numRows % perWord !== 0)
      throw bad(`a multiple of ${perWord} rows for ${describeTensor(this.#tensor)}`, `${numRows}`);
    if (layout === 'gptq' && numCols % perWord !== 0)
      throw bad(`a multiple of ${perWord} columns for ${describeTensor(this.#tensor)}`, `${numCols}`);
    const shapes: Record<IntegerLayout, readonly [number, number]> = {
      bytes: [numRows, numCols],
      rows: [numRows, Math.ceil(numCols / perWord)],
      awq: [numCols, numRows / perWord],
      gptq: [numCols / perWord, numRows],
    };
    expectTensor(this.#tensor, [names.dtype], [shapes[layout]]);
    const scaleShapes = isPerTensor ? [[], [1]] : [isInputMajor ? [numGroups, numRows] : [numRows, numGroups]];
    const scales = this.#find(names.scales, 'required', ['F32', 'BF16', 'F16'], scaleShapes) as StoredTensor;
    const rowWords = Math.ceil(numRows / perWord);
    const packedZeros = [isInputMajor ? [numGroups, rowWords] : [rowWords, numGroups]];
    const storedZeros = this.#find(names.zeros, this.#scheme.zeros, [names.dtype], layout === 'bytes' ? scaleShapes : packedZeros);
    const isMiddle = storedZeros !== undefined && isSymmetric && isFilled(storedZeros, 2 ** (bits - 1) - zeroOffset, bits);
    const zeros = isMiddle ? undefined : storedZeros;
    const storedIndex = this.#find(names.groupIndex, this.#scheme.groupIndex, ['I32'], [[numCols]]);
    const groups = storedIndex === undefined ? null : readInts(storedIndex);
    const isInOrder = groups === null || groups.every((group, column) => group === Math.floor(column / columns));
    const groupIndex = isInOrder ? undefined : storedIndex;
    const strides = isPerTensor ? [0, 0] : isInputMajor ? [1, numRows] : [numGroups, 1];
    const [rowStride, groupStride] = strides as [number, number];
    const integers: TensorIntegers = {
      layout,
      bits,
      numRows,
      groupSize: columns,
      scales: { ...place(scales), dtype: findDtype(scales), rowStride, groupStride },
      zeros: zeros === undefined ? null : place(zeros),
      // Unsigned integers without zero points are stored with half their range added.
      zeroOffset: zeros !== undefined ? zeroOffset : layout === 'bytes' ? 0 : 2 ** (bits - 1),
      groupIndex: groupIndex === undefined ? null : place(groupIndex),
      groups: isInOrder ? null : groups,
    };
    const others = [storedZeros, storedIndex, this.#shape(), ...this.#ofActivations()].flatMap((one) => one?.name ?? []);
    return { ...place(this.#tensor), integers, names: [this.#tensor.name, scales.name, ...others] };
  }

  #find(suffix: string, presence: Presence, dtypes: readonly string[], shapes: readonly (readonly number[])[]): StoredTensor | undefined {
    const name = `${this.#base}.${suffix}`;
    const tensor = this.#stored.get(name);
    const what = `for ${describeTensor(this.#tensor)}`;
    if (tensor === undefined && presence === 'required') throw bad(`a tensor ${describeJson(name)} ${what}`, 'none');
    if (tensor !== undefined && presence === 'none') throw bad(`no tensor ${describeJson(name)} ${what}, as config.json has it,`, 'one');
    if (tensor !== undefined) expectTensor(tensor, dtypes, shapes);
    return tensor;
  }

  /** `weight_shape`, the rows and columns of words. */
  #shape(): StoredTensor | undefined {
    if (this.#scheme.layout !== 'rows') return undefined;
    const tensor = this.#find('weight_shape', 'required', ['I64', 'I32'], [[2]]) as StoredTensor;
    const expected = [this.#numRows, this.#numCols];
    const size = tensor.dtype === 'I64' ? 8 : 4;
    const bytes = readBytes(tensor, size * 2);
    const shape = [0, size].map((at) => Number(size === 8 ? bytes.readBigInt64LE(at) : bytes.readInt32LE(at)));
    if (shape.some((n, i) => n !== expected[i])) throw bad(`${describeJson(expected)} in ${describeTensor(tensor)}`, describeJson(shape));
    return tensor;
  }

  #ofActivations(): StoredTensor[] {
    return ['input_scale', 'input_zero_point'].flatMap((suffix) => this.#stored.get(`${this.#base}.${suffix}`) ?? []);
  }
}

function moduleOf(name: string): string | null {
  return name.endsWith('.weight') ? name.slice(0, -'.weight'.length) : null;
}

function place({ path, byteOffset }: StoredTensor): Place {
  return { path, byteOffset };
}

/** A tensor of int32. */
function readInts(tensor: StoredTensor): Int32Array {
  const count = tensor.shape.reduce((product, size) => product * size, 1);
  return new Int32Array(Uint8Array.from(readBytes(tensor, count * 4)).buffer);
}

/** Whether every field of `bits` of a tensor of words is `value`. */
function isFilled(words: StoredTensor, value: number, bits: 4 | 8): boolean {
  const all = (value * (bits === 4 ? 0x11111111 : 0x01010101)) | 0;
  return readInts(words).every((word) => word === all);
}

function readBytes({ path, byteOffset }: StoredTensor, count: number): Buffer {
  const file = openSync(path, 'r');
  try {
    return readExactly(file, Buffer.alloc(count), byteOffset);
  } catch (error) {
    throw new NdsError('ERR_CHECKPOINT', `Expected to read ${path} but received ${(error as Error).message}`, { cause: error });
  } finally {
    closeSync(file);
  }
}

function expectTensor(tensor: StoredTensor, dtypes: readonly string[], shapes: readonly (readonly number[])[]): void {
  const { dtype, shape } = tensor;
  if (!dtypes.includes(dtype)) throw bad(`type ${dtypes.join(' or ')} for ${describeTensor(tensor)}`, dtype);
  const fits = shapes.some((one) => one.length === shape.length && one.every((n, i) => n === shape[i]));
  if (!fits)
    throw bad(`shape ${shapes.map(describeJson).join(' or ')} for ${describeTensor(tensor)}, as config.json has it,`, describeJson(shape));
}

function bad(expected: string, received: string): NdsError {
  return new NdsError('ERR_TENSOR', `Expected ${expected} but received ${received}`);
}
