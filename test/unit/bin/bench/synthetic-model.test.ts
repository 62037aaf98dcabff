/** Made-up checkpoints: shapes, values, and where they lie. */
import { lstatSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { configOf, shapeName, shapes, tensorsOf } from '../../../../bin/bench/shapes.ts';
import { makeModel } from '../../../../bin/bench/synthetic-model.ts';
import { parseConfig } from '../../../../rank/model/config/config.ts';
import { readModel } from '../../../../rank/model/index.ts';

t.test('every shape is a configuration, with as many parameters as its name says', async (t) => {
  const millions: Readonly<Record<string, number>> = {
    'story-5m': 5.25,
    'smollm2-135m': 134.5,
    'smollm2-360m': 361.8,
    'qwen3-0.6b': 596,
    'llama-3.2-1b': 1235.8,
    'qwen3-1.7b': 1720.6,
    'llama-3.2-3b': 3212.7,
    'qwen3-4b': 4022.5,
    'qwen3-8b': 8190.7,
  };
  t.same(Object.keys(shapes).sort(), Object.keys(millions).sort());
  for (const [name, sizes] of Object.entries(shapes)) {
    t.equal(parseConfig(configOf(sizes), 'config.json', undefined).numHiddenLayers, sizes.numLayers);
    const count = tensorsOf(sizes).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    t.ok(Math.abs(count / 1e6 / (millions[name] as number) - 1) < 0.003, `${name}: ${count}`);
    t.equal(shapeName(name, '--shape'), name);
  }
});

t.test('the same bytes each time, near a normal distribution, with no name on Linux', async (t) => {
  const parent = mkdtempSync('/tmp/t-');
  t.teardown(() => rmSync(parent, { recursive: true }));
  let [done, total] = [0, 1];
  const read = () => {
    const folder = makeModel('story-5m', parent, (doneBytes, totalBytes) => ([done, total] = [doneBytes, totalBytes]));
    const file = join(folder, 'model.safetensors');
    t.equal(lstatSync(file).isSymbolicLink(), process.platform === 'linux');
    const [bytes, { tensors }] = [readFileSync(file), readModel(folder)];
    rmSync(folder, { recursive: true });
    return { bytes, tensors };
  };
  const { bytes, tensors } = read();
  t.equal(done, total);
  t.ok(read().bytes.equals(bytes));
  t.equal(tensors.layers.length, 6);
  const end = bytes.length - 2 * 256;
  const values = Array.from({ length: 2 ** 16 }, (_, i) => {
    const at = end - 2 * (i + 1);
    return new Float32Array(new Uint32Array([bytes.readUInt16LE(at) << 16]).buffer)[0] as number;
  });
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
  // The last matrix is a down_proj of 768 inputs, smaller by √12.
  t.ok(Math.abs(deviation * Math.sqrt(768 * 12) - 1) < 0.05, `${deviation}`);
});
