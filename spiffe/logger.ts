/** Where the library tells what a person may want to know. It never writes anywhere by itself. The console is one; for pino see `fieldsFirst`. */

/** What you pass as `log`. Messages are constants; what differs from time to time is in the fields. What a logger throws is dropped. */
export interface Logger {
  debug(message: string, fields?: object): void;
  info(message: string, fields?: object): void;
  warn(message: string, fields?: object): void;
  error(message: string, fields?: object): void;
}

/** What pino and bunyan are: the fields come first. */
export type FieldsFirst = { readonly [Level in keyof Logger]: (fields: object, message: string) => void };

/** A logger whose methods take the fields before the message, such as pino's, as a `Logger`. */
export function fieldsFirst(log: FieldsFirst): Logger {
  return {
    debug: (message, fields = {}) => log.debug(fields, message),
    info: (message, fields = {}) => log.info(fields, message),
    warn: (message, fields = {}) => log.warn(fields, message),
    error: (message, fields = {}) => log.error(fields, message),
  };
}
