/** Python's `strftime` in the C locale and the local time zone. */
import { TemplateError } from './errors.ts';

const months = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];

const pad = (value: number, width = 2) => String(value).padStart(width, '0');
const hour12 = (date: Date) => date.getHours() % 12 || 12;

function dayOfYear(date: Date): number {
  const ms = Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 1);
  return 1 + Math.round(ms / 86_400_000);
}

const directives: ReadonlyMap<string, (date: Date) => string> = new Map(
  Object.entries<(date: Date) => string>({
    Y: (date) => String(date.getFullYear()),
    y: (date) => pad(date.getFullYear() % 100),
    m: (date) => pad(date.getMonth() + 1),
    d: (date) => pad(date.getDate()),
    e: (date) => String(date.getDate()).padStart(2),
    j: (date) => pad(dayOfYear(date), 3),
    B: (date) => months[date.getMonth()] ?? '',
    b: (date) => (months[date.getMonth()] ?? '').slice(0, 3),
    A: (date) => days[date.getDay()] ?? '',
    a: (date) => (days[date.getDay()] ?? '').slice(0, 3),
    H: (date) => pad(date.getHours()),
    I: (date) => pad(hour12(date)),
    M: (date) => pad(date.getMinutes()),
    S: (date) => pad(date.getSeconds()),
    p: (date) => (date.getHours() < 12 ? 'AM' : 'PM'),
    F: (date) => strftime(date, '%Y-%m-%d'),
    T: (date) => strftime(date, '%H:%M:%S'),
    '%': () => '%',
  }),
);

/** @throws TemplateError for an unknown directive. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%-?(.?)/gs, (directive, name: string) => {
    const value = directives.get(name)?.(date);
    if (value === undefined) throw new TemplateError(`no strftime directive ${directive}`, 'template');
    return directive.startsWith('%-') ? value.replace(/^[0 ]+(?=.)/, '') : value;
  });
}
