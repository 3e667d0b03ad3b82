/** How log lines look: values made plain, and logrus' text. For every log, whatever writes it. */

/** Dates as RFC 3339; an error as its words, with the causes behind it when somebody debugs. Never a stack: messages name their place. */
export function flatten(fields: object, causes: boolean): Record<string, unknown> {
  const flat: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    // the line has a level of its own; logrus' name for the second one
    if (key === 'level') flat['fields.level'] = value;
    else if (value instanceof Date) flat[key] = value.toISOString();
    else flat[key] = key === 'error' ? wordsOf(value, causes) : value;
  }
  return flat;
}

function wordsOf(error: unknown, causes: boolean): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof AggregateError) return error.errors.map((one) => wordsOf(one, causes)).join('; ');
  const expected = error.name === 'SpiffeError' || error.name === 'AbortError' || 'code' in error;
  // an error that nobody expected is a fault of ours: its first frame says where
  const where = expected ? '' : ` (${(error.stack ?? '').split('\n')[1]?.trim() ?? ''})`;
  return `${error.message}${where}${causes && error.cause !== undefined ? `: ${wordsOf(error.cause, causes)}` : ''}`;
}

/** A line of logrus' text: `time="…" level=info msg="…" key=value`. */
export function asText(line: Readonly<Record<string, unknown>>): string {
  const { time, level, msg, ...fields } = line;
  const rest = Object.entries(fields).map(([key, value]) => ` ${key}=${quoted(value)}`);
  return `time=${JSON.stringify(time)} level=${String(level)} msg=${quoted(msg)}${rest.sort().join('')}\n`;
}

/** As logrus: bare when it is made of harmless characters, else quoted. */
function quoted(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  if (/^[A-Za-z0-9\-._/@^+]+$/.test(text)) return text;
  // a terminal may take these as commands, too; JSON leaves them as they are
  return JSON.stringify(text).replace(/[\u007f-\u009f]/g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`);
}
