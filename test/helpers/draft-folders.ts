/** Folders of draft models with the target's tokenizer: with other logits, or a vocabulary padded further. */
import { cpSync } from 'node:fs';
import { copyGoodModel, editJson, goodModel, type Header, type HeaderEntry, readWeights, writeWeights } from './checkpoint-edits.ts';
import { randomIntegers } from './random.ts';

const norm = 'model.norm.weight';
const embedding = 'model.embed_tokens.weight';

function tensor(folder: string, name: string): { entry: HeaderEntry; bytes: Buffer } {
  const { header, data } = readWeights(folder);
  const entry = header[name] as HeaderEntry;
  return { entry, bytes: data.subarray(...(entry.data_offsets as [number, number])) };
}

/** Copies a bf16 model with each channel of its final norm scaled by a random factor: its tokens agree sometimes. */
export function writeBlurredModel(folder: string, model = goodModel): void {
  cpSync(model, folder, { recursive: true });
  const { bytes } = tensor(folder, norm);
  const values = new Uint16Array(Uint8Array.from(bytes).buffer);
  const word = new Uint32Array(1);
  const float = new Float32Array(word.buffer);
  const below = randomIntegers(5);
  for (let i = 0; i < values.length; i++) {
    word[0] = (values[i] as number) << 16;
    float[0] = (float[0] as number) * (0.2 + below(1000) / 1000);
    bytes.writeUInt16LE((word[0] as number) >>> 16, i * 2);
  }
  writeWeights(folder, { data: replaced(folder, norm, bytes) });
}

/**
 * Copies the good model with `numRows` more rows in its embedding, which is also its LM head: ids without a token.
 * Their logits are, in turn, four times the comma's and the negative of that, so that some exceed every token's.
 */
export function writePaddedModel(folder: string, numRows: number): void {
  copyGoodModel(folder);
  const { entry, bytes } = tensor(folder, embedding);
  const [vocabSize = 0, hiddenSize = 0] = entry.shape;
  const comma = bytes.subarray(12 * hiddenSize * 2, 13 * hiddenSize * 2);
  // Four times the value in bf16 adds two to the exponent.
  const rows = [0, 0x8000].map((sign) => {
    const row = Buffer.from(comma);
    for (let i = 0; i < hiddenSize; i++) row.writeUInt16LE((comma.readUInt16LE(i * 2) + (2 << 7)) ^ sign, i * 2);
    return row;
  });
  const { header, data } = readWeights(folder);
  const grown: Header = {};
  const parts: Buffer[] = [];
  let end = 0;
  for (const [name, { data_offsets, ...rest }] of Object.entries(header)) {
    const old = data.subarray(...(data_offsets as [number, number]));
    const part = name === embedding ? Buffer.concat([old, ...Array.from({ length: numRows }, (_, i) => rows[i % 2] as Buffer)]) : old;
    const shape = name === embedding ? [vocabSize + numRows, hiddenSize] : rest.shape;
    grown[name] = { ...rest, shape, data_offsets: [end, end + part.length] };
    end += part.length;
    parts.push(part);
  }
  writeWeights(folder, { header: grown, data: Buffer.concat(parts) });
  editJson(folder, 'config.json', { vocab_size: vocabSize + numRows });
}

/** A folder's weight data with one tensor's bytes replaced. */
function replaced(folder: string, name: string, bytes: Buffer): Buffer {
  const { header, data } = readWeights(folder);
  const copy = Buffer.from(data);
  copy.set(bytes, (header[name] as HeaderEntry).data_offsets[0] as number);
  return copy;
}
