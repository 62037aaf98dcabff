/** Processes that end with the test's process, however that ends: after SIGKILL, tap's last word to a slow file, no code of it runs. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import type { Socket } from 'node:net';

/** Seconds between SIGTERM, on which a launcher stops its ranks and clears up, and SIGKILL. */
const graceSeconds = 5;

/**
 * Reads `+ PID` and `- PID`. The end of its input is the end of the test's process, which alone holds the other end of the pipe: then it
 * ends what is left.
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

/** One for all processes of a test, in a session of its own, where no signal meant for the test reaches it. */
function tell(line: string): void {
  if (watcherInput === undefined) {
    const watcher = spawn('sh', ['-c', watcherScript], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    watcherInput = watcher.stdin as Socket;
    // The test's process need not wait for its watcher.
    watcher.unref();
    watcherInput.unref();
  }
  watcherInput.write(`${line}\n`);
}

/** As `spawn`; the process gets SIGTERM and, five seconds later, SIGKILL when it outlives the test's own. */
export function spawnTied(command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const child = spawn(command, args, options);
  const { pid } = child;
  if (pid === undefined) return child;
  tell(`+ ${pid}`);
  child.once('exit', () => tell(`- ${pid}`));
  return child;
}
