/** The thread that encodes long texts with a tokenizer of its own. */
import { parentPort, workerData } from 'node:worker_threads';
import { NdsError, type NdsErrorCode, toNdsError } from '../../protocol/errors.ts';
import { Tokenizer } from './tokenizer.ts';

/** One text. */
export interface EncodeJob {
  readonly jobId: number;
  readonly text: string;
  readonly addSpecialTokens: boolean;
}

export type EncodeReply =
  | { readonly type: 'ids'; readonly jobId: number; readonly ids: Int32Array }
  | { readonly type: 'error'; readonly jobId: number; readonly code: NdsErrorCode; readonly message: string };

/** Folder of the tokenizer. */
export interface EncodeWorkerData {
  readonly folder: string;
}

const { folder } = workerData as EncodeWorkerData;
const loading = Tokenizer.load(folder);
const port = parentPort;

async function encode({ jobId, text, addSpecialTokens }: EncodeJob): Promise<void> {
  try {
    const tokenizer = await loading;
    if (tokenizer === undefined)
      throw new NdsError('ERR_TOKENIZER', `Expected a tokenizer.json in ${folder} but received a folder without it`);
    const ids = Int32Array.from(tokenizer.encode(text, { addSpecialTokens }));
    port?.postMessage({ type: 'ids', jobId, ids } satisfies EncodeReply, [ids.buffer]);
  } catch (error) {
    const { code, message } = toNdsError(error);
    port?.postMessage({ type: 'error', jobId, code, message } satisfies EncodeReply);
  }
}

port?.on('message', (job: EncodeJob) => void encode(job));
