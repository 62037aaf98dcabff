/** Who asked for a job that outlives its terminal. */
import t from 'tap';
import { isHangupIgnored } from '../../../launcher/hangup.ts';

t.test('nohup before ndsrun, or before npx', async (t) => {
  t.ok(isHangupIgnored({ NDS_NOHUP: '1' }));
  t.ok(isHangupIgnored({ NDS_NOHUP: '0', _: '/usr/bin/nohup' }), 'npx under nohup');
  t.notOk(isHangupIgnored({ NDS_NOHUP: '0', _: '/usr/bin/npx' }));
  t.notOk(isHangupIgnored({}));
});
