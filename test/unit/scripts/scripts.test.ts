/** The import rules, and the closing line of a test run. */
import t from 'tap';
import { checkCpp, checkModule } from '../../../scripts/import-rules.mjs';
import { closingLine, TapSummary } from '../../../scripts/tap-summary.mjs';

t.test('checkModule', async (t) => {
  const allowed: [string, string][] = [
    ['launcher/launch.ts', "import { NdsError } from '../protocol/errors.ts';"],
    ['rank/native.ts', "import { loadAddon } from '../native/load.mjs';"],
    ['rank/model/decoder.ts', "import type { OpSpec } from '../program-spec.ts';"],
    ['rank/engine/engine.ts', "import { Scheduler } from '../scheduler/scheduler.ts';"],
    ['rank/scheduler/scheduler.ts', "import type { Sequence } from './sequence.ts';"],
    ['rank/open-model.ts', "import { native } from './native.ts';"],
    ['bin/runtime.ts', "import { native } from '../rank/native.ts';"],
    ['examples/tp.ts', "import { LLM } from 'nano-dist-spec';"],
    ['test/unit/a.test.ts', "import x from '../../rank/x.ts';"],
    ['rank/llm.ts', "// see import x from '../launcher/x.ts'"],
  ];
  for (const [file, text] of allowed) t.same(checkModule(file, text), [], `${file}: ${text}`);

  const refused: [string, string, RegExp][] = [
    ['protocol/wire.ts', "import { x } from '../rank/x.ts';", /protocol\/ imports only from protocol, but imports rank\/x\.ts/],
    ['launcher/plan.ts', "import type { x } from '../rank/x.ts';", /launcher\//],
    ['launcher/plan.ts', "import {\n  a,\n  b,\n} from '../rank/x.ts';", /rank\/x\.ts/],
    ['launcher/plan.ts', "export * from '../rank/x.ts';", /rank\/x\.ts/],
    ['launcher/plan.ts', "const x = await import('../rank/x.ts');", /rank\/x\.ts/],
    ['rank/llm.ts', "import '../launcher/launch.ts';", /launcher\/launch\.ts/],
    ['rank/llm.ts', "import { loadAddon } from '../native/load.mjs';", /native\/load\.mjs/],
    [
      'rank/scheduler/scheduler.ts',
      "import { native } from '../native.ts';",
      /scheduler imports only from kv, but imports rank\/native\.ts/,
    ],
    ['rank/scheduler/batch.ts', "import type { Metrics } from '../engine/metrics.ts';", /scheduler imports only from kv/],
    ['rank/kv/log.ts', "import type { ScheduledBatch } from '../scheduler/batch.ts';", /kv imports only from no other room/],
    ['rank/elsewhere/a.ts', "import t from 'tap';", /rank\/ has no room elsewhere/],
    ['rank/speculative/proposers/ngram.ts', "import { readFileSync } from 'node:fs';", /does no I\/O/],
    ['examples/tp.ts', "import { LLM } from '../rank/index.ts';", /only from packages/],
  ];
  for (const [file, text, message] of refused) {
    const problems = checkModule(file, text);
    t.equal(problems.length, 1, `${file}: ${text}`);
    t.match(problems[0], message);
  }
});

t.test('checkCpp', async (t) => {
  t.same(checkCpp('native/cpu/linear.cc', '#include <vector>\n#include "core/error.h"\n#include "cpu/isa.h"\n'), []);
  t.same(checkCpp('native/cpu/cpu_model.h', '#include "step/pass.h"\n'), []);
  t.same(checkCpp('native/addon/js.h', '#include <napi.h>\n'), []);
  t.match(checkCpp('native/core/program/arena.cc', '#include <napi.h>\n'), [/only native\/addon knows Node/]);
  t.match(checkCpp('native/core/program/arena.cc', '#include <cuda_runtime.h>\n'), [/CUDA/]);
  t.match(checkCpp('native/cpu/linear.cc', '#include "cuda/stream.h"\n'), [/but includes cuda\/stream\.h/]);
  t.match(checkCpp('native/step/pass.cc', '#include "cpu/isa.h"\n'), [/native\/step includes only from step, comm, core/]);
  t.match(checkCpp('native/cuda/draft.h', '#include "cpu/isa.h"\n'), [/native\/cuda includes only from/]);
  t.match(checkCpp('native/core/program/arena.cc', '#include "cpu/isa.h"\n'), [/native\/core includes only from core/]);
});

const tap = `TAP version 14
# Subtest: test/a.test.ts
    # Subtest: adds
        ok 1 - passes
        not ok 2 - is one
          ---
          diff: |
            -1
          ...
        not ok 3 - later # TODO
        ok 4 - elsewhere # SKIP
    not ok 1 - adds
      ---
      at: a
      ...
not ok 1 - test/a.test.ts # time=1ms
  ---
  exitCode: 1
  ...
ok 2 - test/b.test.ts # time=1ms
  ---
  unimportant: 1
  ...
# { total: 6, pass: 3, fail: 1, skip: 1, todo: 1 }`;

t.test('a test run', async (t) => {
  t.test('shows files and failures with their diagnostics', async (t) => {
    const summary = new TapSummary();
    const shown = tap.split('\n').filter((line) => summary.take(line) !== null);
    t.same(shown, [
      '        not ok 2 - is one',
      '          ---',
      '          diff: |',
      '            -1',
      '          ...',
      '    not ok 1 - adds',
      '      ---',
      '      at: a',
      '      ...',
      'not ok 1 - test/a.test.ts # time=1ms',
      '  ---',
      '  exitCode: 1',
      '  ...',
      'ok 2 - test/b.test.ts # time=1ms',
    ]);
    t.same(summary.counts, { passed: 3, failed: 1, skipped: 2 });
  });

  t.test('closes with the counts, and never with no failure after a crash', async (t) => {
    t.equal(closingLine({ passed: 3, failed: 0, skipped: 2 }, false), '3 passed, 0 failed, 2 skipped');
    t.equal(closingLine({ passed: 3, failed: 0, skipped: 0 }, true), '3 passed, 1 failed, 0 skipped');
    t.equal(closingLine({ passed: 3, failed: 4, skipped: 0 }, true), '3 passed, 4 failed, 0 skipped');
  });
});
