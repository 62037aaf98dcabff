/** From what a user calls a model to its folder. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { packageRoot } from '../../protocol/package-root.ts';
import type { OnLoadProgress } from '../load-progress.ts';
import { cachedSnapshot } from './cache.ts';
import { readHubSettings } from './hub-settings.ts';
import { type HubId, nearShipped, parseModelName, shippedModels, shippedPrefix } from './model-name.ts';
import { pullModel } from './pull.ts';

/**
 * The folder of a model: an existing folder as it is given, a shipped model (`nds:story-5m`), or a repository of the
 * hub (`ORG/NAME` or `ORG/NAME@REVISION`) from Python's cache, downloaded if it is not there.
 *
 * @throws NdsError `ERR_MODEL_NOT_FOUND` for what is none of these; else as `pullModel`.
 */
export async function resolveModel(model: string, onProgress?: OnLoadProgress): Promise<string> {
  const found = statSync(model, { throwIfNoEntry: false });
  if (found?.isDirectory()) return model;
  const name = parseModelName(model);
  if (found === undefined && name.type === 'shipped') return shippedFolder(name.name);
  if (found === undefined && name.type === 'hub' && !isWeightFile(model)) return resolveHubId(name, onProgress);
  throw notFound(model, found !== undefined);
}

async function resolveHubId(id: HubId, onProgress: OnLoadProgress | undefined): Promise<string> {
  const settings = readHubSettings();
  return cachedSnapshot(settings.cacheDir, id) ?? pullModel(id, settings, onProgress);
}

/** The folder of a model that this package ships. @throws NdsError `ERR_MODEL_NOT_FOUND` for another name. */
export function shippedFolder(name: string): string {
  const known = shippedModels.find((one) => one === name);
  const names = shippedModels.map((one) => shippedPrefix + one).join(' or ');
  if (known === undefined) throw new NdsError('ERR_MODEL_NOT_FOUND', `Expected ${names} but received ${shippedPrefix}${name}`);
  const folder = join(packageRoot(), 'examples', 'models', known);
  if (existsSync(folder)) return folder;
  throw new NdsError('ERR_MODEL_NOT_FOUND', `Expected ${shippedPrefix}${known} in ${folder} but received nothing`);
}

function isWeightFile(model: string): boolean {
  return /\.(?:gguf|safetensors|bin|pth?|onnx)$/i.test(model);
}

function notFound(model: string, isFile: boolean): NdsError {
  const refuse = (received: string) => new NdsError('ERR_MODEL_NOT_FOUND', `Expected ${expectedModel} but received ${received}`);
  if (/\.gguf$/i.test(model)) return refuse(`the GGUF file ${model}: give the repository ORG/NAME that it was made from`);
  if (/\.safetensors$/i.test(model)) return refuse(`the file ${model}: give the folder that it is in`);
  if (isFile || isWeightFile(model)) return refuse(`the file ${model}`);
  const near = nearShipped(model);
  const hint = near === null ? '' : ` (did you mean ${near}?)`;
  return refuse(`${model}, where nothing is${hint}`);
}

const expectedModel = 'a model folder with config.json and *.safetensors, ORG/NAME of the hub, or nds:story-5m';
