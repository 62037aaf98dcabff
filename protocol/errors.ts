/** The project's error class, its codes, and the exit code of each. */

/**
 * Every error code, with the exit code of a process that it ends.
 * 64 usage, 65 bad model or data, 69 lost peer, 70 internal or system error, 75 hang, 78 configuration mismatch.
 */
export const exitCodes = {
  /** A command line, option, API argument or sampling parameter that is not valid. */
  ERR_USAGE: 64,
  /** A script or file named on the command line that does not exist. */
  ERR_NOT_FOUND: 64,
  /** A prompt, token id or sampling parameter that the loaded model cannot serve. */
  ERR_REQUEST: 64,
  /** More ranks than attention heads, or another layout that the model does not allow. */
  ERR_TOO_MANY_RANKS: 64,
  /** A path that is no model folder. */
  ERR_MODEL_NOT_FOUND: 65,
  /** config.json or generation_config.json lacks a key or has one of a wrong type or value. */
  ERR_CONFIG: 65,
  /** An architecture, rope type, activation or dtype that is not implemented. */
  ERR_UNSUPPORTED: 65,
  /** A safetensors file that is truncated or contradicts itself. */
  ERR_CHECKPOINT: 65,
  /** A tensor that is missing, unknown, duplicate or of a wrong shape or type. */
  ERR_TENSOR: 65,
  /** tokenizer.json is missing or cannot be read. */
  ERR_TOKENIZER: 65,
  /** A file that is no plan log, or one whose records contradict themselves. */
  ERR_PLAN_LOG: 65,
  /** A plan, result or control message that breaks its schema. */
  ERR_PROTOCOL: 70,
  /** A plan whose slot, block, row or length is out of range. */
  ERR_PLAN: 70,
  /** A state that our own code should never reach. */
  ERR_INTERNAL: 70,
  /** The native core could not be found, built or loaded. */
  ERR_NATIVE: 70,
  /** The machine has less memory than a load needs, or the operating system refused memory, a file or a socket. */
  ERR_SYSTEM: 70,
  /** CUDA, or a library that it needs, refused something: no device, no memory, a failed launch. */
  ERR_CUDA: 70,
  /** Another rank ended or stopped answering. */
  ERR_PEER_LOST: 69,
  /** A collective or step made no progress within its timeout. */
  ERR_STEP_TIMEOUT: 75,
  /** Ranks disagree about a version, an option or the model. */
  ERR_MISMATCH: 78,
  /** The LLM was closed; the call came after, or was in flight. */
  ERR_CLOSED: 70,
  /** The caller aborted the request. */
  ERR_ABORTED: 1,
} as const;

const permanentCodes: readonly number[] = [exitCodes.ERR_USAGE, exitCodes.ERR_CONFIG, exitCodes.ERR_MISMATCH];

/** Whether an exit code is that of an error which comes again, so that a restart is no help: usage, data, configuration. */
export function isPermanentCode(exitCode: number): boolean {
  return permanentCodes.includes(exitCode);
}

/** A stable, documented error code. */
export type NdsErrorCode = keyof typeof exitCodes;

/** Thrown by every part of this project: a stable `code`, and a message with the expected and the received value. */
export class NdsError extends Error {
  override readonly name = 'NdsError';
  readonly code: NdsErrorCode;

  constructor(code: NdsErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  /** Exit code of a process that this error ends. */
  get exitCode(): number {
    return exitCodes[this.code];
  }
}

/** A short rendering of a value, with its type where that matters. */
export function describe(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'number' || value === undefined || value === null) return String(value);
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  try {
    const text = JSON.stringify(value) ?? typeof value;
    return text.length > 80 ? `${text.slice(0, 80)}…` : text;
  } catch {
    return `a value of type ${typeof value}`;
  }
}

/** As `describe`, for values from JSON: an absent one is "nothing". */
export function describeJson(value: unknown): string {
  return value === undefined ? 'nothing' : describe(value);
}

/**
 * The error for an unexpected value: "Expected X for Y but received Z".
 * @param place - Y; null where `expected` says it
 * @param print - formats `received`
 */
export function unexpected<T>(
  code: NdsErrorCode,
  expected: string,
  place: string | null,
  received: T,
  print: (received: T) => string = describe,
): NdsError {
  return new NdsError(code, `Expected ${expected}${place === null ? '' : ` for ${place}`} but received ${print(received)}`);
}

/** The error for a caller's function that threw. @param name - of the option that holds the function */
export function callbackError(code: NdsErrorCode, name: string, thrown: unknown): NdsError {
  const message = thrown instanceof Error ? thrown.message : describe(thrown);
  return new NdsError(code, `Expected ${name} to return but it threw: ${message}`, { cause: thrown });
}

/** Whether a value is one of our codes (native errors carry theirs as a plain string). */
export function isNdsErrorCode(code: unknown): code is NdsErrorCode {
  return typeof code === 'string' && Object.hasOwn(exitCodes, code);
}

/** Converts anything thrown, native errors included, to an `NdsError`; `fallback` = code for errors without ours. */
export function toNdsError(error: unknown, fallback: NdsErrorCode = 'ERR_INTERNAL'): NdsError {
  if (error instanceof NdsError) return error;
  const code = (error as { code?: unknown } | null)?.code;
  const message = error instanceof Error ? error.message : String(error);
  return new NdsError(isNdsErrorCode(code) ? code : fallback, message, { cause: error });
}
