/** The head of a file of packed matrices, for listings; native/cpu/packed_file.h has its layout, and native checks the rest. Pure. */
import { isObject, jsonOrNull } from '../../protocol/checks.ts';

/** Whose shard is in a file. */
export interface ShardLabel {
  /** Folder of the model when the file was written. */
  readonly model: string;
  readonly rank: number;
  readonly worldSize: number;
  /** As of `formatsOf`. */
  readonly formats: string;
}

/** Bytes before the label. */
export const headerBytes = 72;
/** Max bytes of a label. */
const maxLabelBytes = 8192;
const magic = 'NDSSHARD';

/** First bytes of a file that hold its header and label. */
export const headBytes = headerBytes + maxLabelBytes;

export function formatLabel({ model, rank, worldSize, formats }: ShardLabel): string {
  return JSON.stringify({ model, rank, worldSize, formats });
}

/** The label of a file, from its first `headBytes`; null for a file of another kind. */
export function parseLabel(head: Uint8Array): ShardLabel | null {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (head.length < headerBytes || new TextDecoder('latin1').decode(head.subarray(0, magic.length)) !== magic) return null;
  const end = headerBytes + view.getUint32(12, true);
  if (end > Math.min(headBytes, head.length)) return null;
  const label = jsonOrNull(new TextDecoder().decode(head.subarray(headerBytes, end)));
  if (!isObject(label)) return null;
  const { model, rank, worldSize, formats } = label;
  if (typeof model !== 'string' || typeof rank !== 'number' || typeof worldSize !== 'number' || typeof formats !== 'string') return null;
  return { model, rank, worldSize, formats };
}
