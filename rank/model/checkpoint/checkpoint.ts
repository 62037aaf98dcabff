/** A checkpoint folder: every tensor of its safetensors files, whichever shard holds it. */

import { join } from 'node:path';
import { isObject } from '../../../protocol/checks.ts';
import { describeJson, NdsError } from '../../../protocol/errors.ts';
import { fileSize, findDuplicateKey, readJsonFile } from '../json.ts';
import { readSafetensors, type StoredTensor } from './safetensors.ts';

const singleFile = 'model.safetensors';
const indexFile = 'model.safetensors.index.json';
const maxIndexBytes = 100_000_000;

/**
 * Tensors of the checkpoint in `folder` by name. Only headers are read.
 * @throws NdsError `ERR_MODEL_NOT_FOUND` without weights, `ERR_CHECKPOINT` for a bad file or index, `ERR_TENSOR` for a
 * tensor that index and shards disagree about.
 */
export function readCheckpoint(folder: string): Map<string, StoredTensor> {
  if (fileSize(join(folder, singleFile), 'ERR_CHECKPOINT') !== undefined) {
    return new Map(readSafetensors(join(folder, singleFile)).map((tensor) => [tensor.name, tensor]));
  }
  const index = join(folder, indexFile);
  if (fileSize(index, 'ERR_CHECKPOINT') === undefined) {
    throw new NdsError('ERR_MODEL_NOT_FOUND', `Expected ${singleFile} or ${indexFile} in ${folder} but received neither`);
  }
  return readShards(folder, index, readWeightMap(index));
}

/** Shard of each tensor, by the index. */
function readWeightMap(index: string): Map<string, string> {
  const { object, text } = readJsonFile(index, 'ERR_CHECKPOINT', maxIndexBytes);
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined)
    throw new NdsError('ERR_CHECKPOINT', `Expected every key once in ${index} but received ${describeJson(duplicate)} twice`);
  const weightMap = Object.hasOwn(object, 'weight_map') ? object['weight_map'] : undefined;
  if (!isObject(weightMap))
    throw new NdsError('ERR_CHECKPOINT', `Expected an object for weight_map in ${index} but received ${describeJson(weightMap)}`);
  const shards = new Map<string, string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    // A file name, no path: that could lead out of the folder.
    if (typeof shard !== 'string' || !/^[^/\\\0]+\.safetensors$/.test(shard)) {
      throw new NdsError(
        'ERR_CHECKPOINT',
        `Expected the name of a .safetensors file for tensor ${describeJson(name)} in ${index} but received ${describeJson(shard)}`,
      );
    }
    shards.set(name, shard);
  }
  return shards;
}

function readShards(folder: string, index: string, weightMap: Map<string, string>): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const shard of new Set(weightMap.values())) {
    for (const tensor of readSafetensors(join(folder, shard))) {
      const { name } = tensor;
      const other = tensors.get(name);
      if (other !== undefined)
        throw new NdsError(
          'ERR_TENSOR',
          `Expected tensor ${describeJson(name)} once but received it in ${other.path} and in ${tensor.path}`,
        );
      const named = weightMap.get(name);
      if (named !== shard)
        throw new NdsError(
          'ERR_TENSOR',
          `Expected ${index} to place tensor ${describeJson(name)} in ${shard} but received ${describeJson(named)}`,
        );
      tensors.set(name, tensor);
    }
  }
  for (const [name, shard] of weightMap) {
    if (!tensors.has(name))
      throw new NdsError(
        'ERR_TENSOR',
        `Expected tensor ${describeJson(name)} in ${join(folder, shard)}, as ${index} says, but received none`,
      );
  }
  return tensors;
}
