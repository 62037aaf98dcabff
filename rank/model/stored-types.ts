/** The types in which tensors are stored, and in which they are kept. */
import { describeJson, NdsError } from '../../protocol/errors.ts';
import type { DType } from '../program-spec.ts';
import type { StoredTensor } from './checkpoint/safetensors.ts';
import type { Quantization, ScaleBlock } from './config/quantization.ts';

/** Scales of a tensor stored as float8_e4m3, whose values are bf16(w · scale). */
export interface TensorScales {
  /** Path of their file, and their offset in it. */
  readonly path: string;
  readonly byteOffset: number;
  readonly dtype: DType;
  /** Rows and columns of the tensor that share a scale, counted from its first. */
  readonly rowsPerScale: number;
  readonly colsPerScale: number;
}

/** The type of a tensor's values, and the scales that they are computed with. */
export interface StoredType {
  readonly dtype: DType;
  readonly fp8: TensorScales | null;
  /** Tensors that belong to it. Those for quantized activations are not read. */
  readonly companions: readonly string[];
}

const dtypes: ReadonlyMap<string, DType> = new Map([
  ['F32', 'float32'],
  ['BF16', 'bfloat16'],
  ['F16', 'float16'],
]);
const fp8 = 'F8_E4M3';

/**
 * Decides by a tensor's own type and the scales beside it how it is read; a bias or norm is never quantized.
 * @throws NdsError `ERR_TENSOR` for another type, for FP8 without scales or config.json's word for it, for scales without
 * FP8, and for scales of another shape than config.json says.
 */
export function storedType(tensor: StoredTensor, stored: ReadonlyMap<string, StoredTensor>, quantization: Quantization | null): StoredType {
  const what = describeTensor(tensor);
  const scales = scalesOf(tensor, stored);
  const dtype = dtypes.get(tensor.dtype);
  if (dtype !== undefined) {
    const [scale] = scales;
    if (scale !== undefined) throw bad(`type ${fp8} for ${what}, which has ${describeJson(scale.name)}`, tensor.dtype);
    return { dtype, fp8: null, companions: [] };
  }
  if (tensor.dtype !== fp8 || tensor.shape.length !== 2)
    throw bad(`type ${tensor.shape.length === 2 ? `${fp8}, ` : ''}F32, BF16 or F16 for ${what}`, tensor.dtype);
  if (quantization === null) throw bad(`a quantization_config in config.json for ${what} of type ${fp8}`, 'none');
  const [scale, other] = scales;
  if (scale === undefined || other !== undefined) {
    const names = scaleNames(tensor).map(describeJson).join(' or ');
    throw bad(`a tensor ${names} for ${what} of type ${fp8}`, scale === undefined ? 'none' : 'both');
  }
  const base = tensor.name.replace(/\.weight$/, '');
  const activations = [`${base}.activation_scale`, `${base}.input_scale`].filter((name) => stored.has(name));
  return { dtype: 'bfloat16', fp8: tensorScales(tensor, scale, quantization), companions: [scale.name, ...activations] };
}

/** The type in which tensors are packed together: their own, or float32, which holds every value of the others. */
export function packedDtype(tensors: readonly { readonly dtype: DType }[]): DType {
  const [first = 'float32', ...others] = tensors.map(({ dtype }) => dtype);
  return others.every((dtype) => dtype === first) ? first : 'float32';
}

/** The type of a tensor of floats. @throws NdsError `ERR_TENSOR` for another. */
export function findDtype(tensor: StoredTensor): DType {
  const dtype = dtypes.get(tensor.dtype);
  if (dtype === undefined) throw bad(`type F32, BF16 or F16 for ${describeTensor(tensor)}`, tensor.dtype);
  return dtype;
}

/** Transformers calls the factor an inverse; both names are for what multiplies a weight. */
function scaleNames({ name }: StoredTensor): string[] {
  return [`${name}_scale_inv`, `${name}_scale`];
}

function scalesOf(tensor: StoredTensor, stored: ReadonlyMap<string, StoredTensor>): StoredTensor[] {
  return scaleNames(tensor).flatMap((name) => stored.get(name) ?? []);
}

function tensorScales(tensor: StoredTensor, scale: StoredTensor, { scaleBlocks }: Quantization): TensorScales {
  const what = describeTensor(scale);
  const dtype = findDtype(scale);
  const block = scaleBlocks.find((block) => scaleShapes(tensor, block).some((shape) => isSame(shape, scale.shape)));
  if (block === undefined) {
    const shapes = scaleBlocks.flatMap((block) => scaleShapes(tensor, block)).map(describeJson);
    throw bad(`shape ${[...new Set(shapes)].join(' or ')} for ${what}, as config.json has it,`, describeJson(scale.shape));
  }
  const [numRows, numCols] = tensor.shape as [number, number];
  return { path: scale.path, byteOffset: scale.byteOffset, dtype, rowsPerScale: block[0] ?? numRows, colsPerScale: block[1] ?? numCols };
}

function scaleShapes({ shape }: StoredTensor, [rows, cols]: ScaleBlock): (readonly number[])[] {
  if (rows === null && cols === null) return [[], [1]];
  const [numRows, numCols] = shape as [number, number];
  return [[Math.ceil(numRows / (rows ?? numRows)), Math.ceil(numCols / (cols ?? numCols))]];
}

function isSame(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** A tensor as errors name it. */
export function describeTensor({ name, path }: StoredTensor): string {
  return `tensor ${describeJson(name)} in ${path}`;
}

function bad(expected: string, received: string): NdsError {
  return new NdsError('ERR_TENSOR', `Expected ${expected} but received ${received}`);
}
