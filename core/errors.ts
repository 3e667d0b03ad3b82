/** The codes that only programs know, beside those of `spiffe/errors.ts`, and their maker. */
import { type Code, SpiffeError } from '../spiffe/errors.ts';

export type CoreCode = Code | 'SETTINGS_INVALID' | 'STORE_FAILED';

export type CoreError = SpiffeError<CoreCode>;

/** @param message goes on the wire, in SPIRE's words where its clients match them; `cause` never does. */
export function fail(
  code: CoreCode,
  message: string,
  options: { reason?: string; cause?: unknown; details?: readonly StatusDetail[] } = {},
): CoreError {
  const error = new SpiffeError<CoreCode>(
    code,
    options.reason,
    message,
    options.cause === undefined ? undefined : { cause: options.cause },
  );
  if (options.details) Object.defineProperty(error, DETAILS, { value: options.details });
  return error;
}

/** An `Any` of `grpc-status-details-bin`, such as `type.googleapis.com/spire.api.types.PermissionDeniedDetails`. */
export interface StatusDetail {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

const DETAILS = Symbol('details');

export function detailsOf(error: unknown): readonly StatusDetail[] {
  return (error as { [DETAILS]?: readonly StatusDetail[] } | undefined)?.[DETAILS] ?? [];
}

export function isCoded(error: unknown, ...codes: CoreCode[]): error is CoreError {
  return error instanceof SpiffeError && (codes.length === 0 || (codes as string[]).includes(error.code));
}
