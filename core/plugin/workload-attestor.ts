/** What a local process is, as facts that entries select on. */

/** A process as the kernel named it on the socket; alive (by pidfd) when `attest` is called, checked again afterwards by the caller. */
export interface WorkloadProcess {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** On whose account costly work is; of an operator's question there is none. */
  readonly party?: string | undefined;
}

export interface WorkloadAttestor {
  /** Values; the selector's type is the plugin's name. Throws UNAVAILABLE when it cannot tell; no facts is an empty list. */
  attest(process: WorkloadProcess, signal: AbortSignal): Promise<readonly string[]>;
}
