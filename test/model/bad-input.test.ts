/** Defects of a checkpoint are reported by name, quickly, and before any computation. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'tap';
import { NdsError } from '../../protocol/errors.ts';
import { readModel } from '../../rank/model/index.ts';
import { badIntegers } from '../helpers/bad-integers.ts';
import { badModels, writeBadModel } from '../helpers/bad-models.ts';
import { badQuantized } from '../helpers/bad-quantized.ts';
import { copyGoodModel, shardWeights } from '../helpers/checkpoint-edits.ts';

function errorOf(path: string): unknown {
  try {
    readModel(path);
  } catch (error) {
    return error;
  }
  return undefined;
}

test('the good model that the bad ones are made of', (t) => {
  const folder = t.testdir({});
  copyGoodModel(join(folder, 'single'));
  t.equal(readModel(join(folder, 'single')).config.hiddenSize, 64);
  copyGoodModel(join(folder, 'sharded'));
  shardWeights(join(folder, 'sharded'), (map) => map);
  t.equal(readModel(join(folder, 'sharded')).config.hiddenSize, 64);
  t.end();
});

test('a path that is no model', (t) => {
  const folder = t.testdir({ 'a-file': 'x', empty: {} });
  for (const name of ['nowhere', 'a-file', 'empty', 'a-file/below']) {
    const path = join(folder, name);
    t.match(errorOf(path), { name: 'NdsError', code: 'ERR_MODEL_NOT_FOUND', exitCode: 65, message: path }, name);
  }
  t.end();
});

test('every bad checkpoint', (t) => {
  const parent = t.testdir({});
  for (const [i, bad] of [...badModels, ...badQuantized, ...badIntegers].entries()) {
    const folder = join(parent, `${i}`);
    writeBadModel(bad, folder);
    const error = errorOf(folder);
    t.type(error, NdsError, bad.name);
    t.match(error, { code: bad.code, exitCode: 65, message: bad.names }, bad.name);
    t.match((error as Error).message, folder, `${bad.name}: the message says where`);
  }
  t.end();
});

test('a deep config.json does not overflow a stack', (t) => {
  const folder = join(t.testdir({}), 'deep');
  mkdirSync(folder);
  writeFileSync(join(folder, 'config.json'), `${'{"rope_parameters":'.repeat(100_000)}1${'}'.repeat(100_000)}`);
  t.match(errorOf(folder), { name: 'NdsError', code: 'ERR_CONFIG' });
  t.end();
});
