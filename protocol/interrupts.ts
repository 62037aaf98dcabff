/** Who answers SIGINT: by default it ends the gang; rank 0 of a chat takes it for itself. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const fileName = 'interrupts-0';

/** Asks the launcher to pass SIGINT to rank 0 alone from now on. */
export function claimInterrupts(runDir: string): void {
  writeFileSync(join(runDir, fileName), '', { mode: 0o600 });
}

/** Whether rank 0 has asked for it. */
export function areInterruptsClaimed(runDir: string): boolean {
  return existsSync(join(runDir, fileName));
}
