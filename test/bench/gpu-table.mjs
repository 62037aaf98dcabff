/** Prints one table of the `result` lines of logs: `node test/bench/gpu-table.mjs LOG…`. Rates are tokens per second. */
import { existsSync, readFileSync } from 'node:fs';

/** @typedef {{ shape: string, case: string, system: string, tokensPerSecond: number, share: number | null }} Result */

const logs = process.argv.slice(2).filter((file) => existsSync(file));
/** @type {Result[]} */
const results = logs
  .flatMap((file) => readFileSync(file, 'utf8').split('\n'))
  .flatMap((line) => (line.startsWith('result {') ? [JSON.parse(line.slice('result '.length))] : []));
const systems = [...new Set(results.map(({ system }) => system))];
const rows = new Map(results.map((result) => [`${result.shape} ${result.case}`, /** @type {Record<string, Result>} */ ({})]));
for (const result of results) Object.assign(rows.get(`${result.shape} ${result.case}`) ?? {}, { [result.system]: result });

/** @param {Result | undefined} result */
function cell(result) {
  if (result === undefined) return '-';
  const rate = result.tokensPerSecond.toFixed(result.tokensPerSecond < 100 ? 1 : 0);
  return result.share === null ? rate : `${rate} (${(result.share * 100).toFixed(0)} %)`;
}

const table = [['', ...systems], ...[...rows].map(([name, row]) => [name, ...systems.map((system) => cell(row[system]))])];
const widths = table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? [];
for (const row of table)
  console.log(row.map((text, i) => (i === 0 ? text.padEnd(widths[0] ?? 0) : text.padStart(widths[i] ?? 0))).join('  '));
