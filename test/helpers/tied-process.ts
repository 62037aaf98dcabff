/**
 * Processes that end with the test's process, even after SIGKILL, with which tap ends a slow file and which runs no
 * handler.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import type { Socket } from 'node:net';

/** Seconds between SIGTERM, on which a launcher stops its ranks and cleans up, and SIGKILL. */
const graceSeconds = 5;

/**
 * Reads `+ PID` and `- PID`. Only the test's process holds the other end of the pipe: at the end of input it has ended,
 * and the remaining processes are killed.
 */
const watcherScript = `
left=' '
while read -r sign pid; do
  case $sign in
    +) left="$left$pid " ;;
    -) left="\${left%% $pid *} \${left#* $pid }" ;;
  esac
done
[ "$left" = "\${left#*[0-9]}" ] && exit
kill $left
sleep ${graceSeconds}
kill -9 $left`;

let watcherInput: Socket | undefined;

/** Sends a line to the watcher, one per test, in a session that no signal meant for the test reaches. */
function tell(line: string): void {
  if (watcherInput === undefined) {
    const watcher = spawn('sh', ['-c', watcherScript], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    watcherInput = watcher.stdin as Socket;
    // The test's process does not wait for its watcher.
    watcher.unref();
    watcherInput.unref();
  }
  watcherInput.write(`${line}\n`);
}

/** As `spawn`, but the process gets SIGTERM when the test's process ends, and SIGKILL five seconds later. */
export function spawnTied(command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const child = spawn(command, args, options);
  const { pid } = child;
  if (pid === undefined) return child;
  tell(`+ ${pid}`);
  child.once('exit', () => tell(`- ${pid}`));
  return child;
}
