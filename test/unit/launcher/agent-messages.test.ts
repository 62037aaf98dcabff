/** Messages between launchers: what leaves arrives, and nothing else is taken. */
import t from 'tap';
import { type AgentCommand, type AgentEvent, readAgentCommand, readAgentEvent } from '../../../launcher/agent-messages.ts';
import { encodeFrame, FrameReader } from '../../../protocol/frames.ts';

const exit = { rank: 1, pid: 4_000_000, exitCode: null, signal: 'SIGSEGV', spawnError: null, time: Date.now() } as const;
const error = { rank: 1, code: null, name: 'Error', message: 'm', stack: null, exitCode: 1, timestamp: Date.now() };
const failure = { rank: 1, exitCode: 2, signal: null, code: null, message: null };

const events: readonly AgentEvent[] = [
  { type: 'prepared', epoch: 0, host: 'h', publicKeys: ['k'] },
  { type: 'exit', epoch: 1, exit, error },
  { type: 'exit', epoch: 1, exit: { ...exit, spawnError: { code: 'ENOENT', message: 'm' } }, error: null },
  { type: 'closed', epoch: 1, rank: 1, stderrTail: ['line'], outOfMemoryKills: 'one', wasKilledByLauncher: true },
  { type: 'closed', epoch: 1, rank: 1, stderrTail: [], outOfMemoryKills: null, wasKilledByLauncher: false },
  { type: 'inspected', epoch: 1, time: Date.now() + 0.5, errors: [error], states: [] },
  { type: 'publish', epoch: 0, key: 'k', value: 'v' },
  { type: 'ready', epoch: 0, rank: 0 },
  { type: 'states', epoch: 0, states: [] },
  { type: 'failed', code: 'ERR_SYSTEM', message: 'm', running: [1] },
  { type: 'signalled', signal: 'SIGTERM' },
];

const commands: readonly AgentCommand[] = [
  { type: 'prepare', epoch: 0 },
  { type: 'start', epoch: 0, runId: 'r', keepsRankZero: false, nodes: { addresses: ['a'], publicKeys: ['k'] } },
  { type: 'stop', epoch: 0, failure, keepsRankZero: true },
  { type: 'stop', epoch: 0, failure: null, keepsRankZero: false },
  { type: 'ended', epoch: 0, rank: 3 },
  { type: 'published', epoch: 0, key: 'k', value: 'v' },
  { type: 'inspect', epoch: 0 },
  { type: 'signal', signal: 'SIGUSR2' },
  { type: 'notice', lines: ['l'] },
  { type: 'finish', exitCode: 42, report: '{}' },
];

const overLink = (message: object) => new FrameReader(1 << 20).push(encodeFrame(message))[0];

t.test('every message arrives as it left', async (t) => {
  for (const event of events) t.same(readAgentEvent(overLink(event)), event);
  for (const command of commands) t.same(readAgentCommand(overLink(command)), command);
});

t.test('anything else is refused', async (t) => {
  const bad = { code: 'ERR_PROTOCOL', message: /Expected a known message between launchers/ };
  for (const event of events) {
    t.throws(() => readAgentCommand(event), bad, 'of the other direction');
    t.throws(() => readAgentEvent({ ...event, extra: 1 }), bad);
    for (const key of Object.keys(event)) {
      t.throws(() => readAgentEvent({ ...event, [key]: { nested: true } }), bad, `${event.type}.${key}`);
      const { [key as 'type']: _, ...rest } = event;
      t.throws(() => readAgentEvent(rest), bad);
    }
  }
  for (const value of [null, 1, 'prepare', [], { type: '__proto__' }, { type: 'constructor' }, { type: 'signal', signal: 'KILL -9' }]) {
    t.throws(() => readAgentCommand(value), bad);
  }
});
