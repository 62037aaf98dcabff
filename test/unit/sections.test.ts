import t from 'tap';
import { NdsError } from '../../protocol/errors.ts';
t.equal(new NdsError('ERR_USAGE','x').exitCode, 64);
