/** A node's agent: what it cannot do is told to the coordinator, and its ranks still end. */
import t from 'tap';
import { Agent, type AgentContext } from '../../../launcher/agent.ts';
import type { AgentEvent } from '../../../launcher/agent-messages.ts';
import { NodeKeys } from '../../../launcher/node-keys.ts';
import { NdsError } from '../../../protocol/errors.ts';

const full = new NdsError('ERR_SYSTEM', 'Expected 1.0 MiB but received ENOSPC');

/** An agent on a machine without room. */
function agentOf(keys: NodeKeys | null): { readonly agent: Agent; readonly events: AgentEvent[] } {
  const events: AgentEvent[] = [];
  const resources = {
    openEpoch: () => {
      throw full;
    },
  };
  const context = { resources, keys, failureTimeoutMs: 10, output: { notice: () => {} } } as unknown as AgentContext;
  return { agent: new Agent(context, (event) => events.push(event)), events };
}

t.test('one of several nodes tells the others and waits for the end', async (t) => {
  const { agent, events } = agentOf(new NodeKeys('00', 1, '127.0.0.1'));
  agent.handle({ type: 'prepare', epoch: 0 });
  t.same(events, [], 'after what the coordinator is doing');
  await Promise.resolve();
  t.same(events, [{ type: 'failed', code: 'ERR_SYSTEM', message: full.message, running: [] }]);
  const failure = { rank: 0, exitCode: null, signal: null, code: full.code, message: full.message };
  agent.handle({ type: 'stop', epoch: 0, failure, keepsRankZero: false });
  agent.handle({ type: 'finish', exitCode: 70, report: '{}' });
  t.match(await agent.finished, { exitCode: 70, report: '{}' });
  t.equal(events.length, 1);
});

t.test('the only node fails at once', async (t) => {
  const { agent, events } = agentOf(null);
  agent.handle({ type: 'prepare', epoch: 0 });
  await t.rejects(agent.finished, full);
  t.same(events, []);
});
