/** An intermediate of an external PKI, as files: signs a CA of ours below it, or (`sign_directly`) lends itself for signing. */
import { fail } from '../../../core/errors.ts';
import { definePlugin, type Host } from '../../../core/plugin/plugin.ts';
import type { DirectAuthority, UpstreamAuthority } from '../../../core/plugin/upstream-authority.ts';
import { isStop } from '../../../core/tasks.ts';
import { parseCsr } from '../../../core/x509/csr.ts';
import { issueX509Ca } from '../../../core/x509/issue.ts';
import { EKU } from '../../../spiffe/x509/certificate.ts';
import { Latest } from '../../../spiffe/latest.ts';
import { type Loaded, loadIntermediate } from './load.ts';
import { type DiskSettings, diskSettings } from './settings.ts';

/** How often the files are looked at. */
const LOOK_MS = 5_000;
/** Two files can't change at once: a set that does not fit is tried again for this long before anybody is warned. */
const PATIENCE_MS = 60_000;
/** Start of validity of what we sign: a peer's clock may run a little behind. */
const BACKDATE_MS = 10_000;
/** What is left of the lifetime when an operator is reminded that there is no successor. */
const REMIND_AT = [1 / 20, 1 / 6, 1 / 2] as const;

export const disk = definePlugin({
  kind: 'upstream-authority',
  name: 'disk',
  settings: diskSettings,
  async start(wanted, host): Promise<UpstreamAuthority> {
    const latest = new Latest(await loadIntermediate(wanted, host.trustDomain, host.clock.now()));
    if (wanted.insecure_self_signed_root && latest.value.selfSigned) {
      host.log.warn('The X.509 authority is a self-signed root from a file: whoever reads that file is this trust domain', {
        path: wanted.cert_file_path,
      });
    }
    warnOfPurposes(latest.value, host);
    void follow(wanted, host, latest).catch((error: unknown) => {
      if (!isStop(error, host.signal)) host.log.error('Upstream authority files are no longer watched', { error });
    });
    return wanted.sign_directly ? direct(latest) : caBelow(wanted, host, latest);
  },
});

/** RFC 5280 gives a CA's extended key usage no meaning for what it issues; OpenSSL does: then its users refuse every SVID below. */
function warnOfPurposes({ chain }: Loaded, { log }: Host): void {
  for (const { extKeyUsage, subjectText } of chain) {
    if (!extKeyUsage || extKeyUsage.includes(EKU.any) || (extKeyUsage.includes(EKU.serverAuth) && extKeyUsage.includes(EKU.clientAuth)))
      continue;
    log.warn(
      'An intermediate of the PKI has an extended key usage without serverAuth or clientAuth: peers that verify with OpenSSL will refuse the SVIDs below it; ask the PKI team for one without',
      {
        subject: subjectText,
      },
    );
  }
}

function direct(latest: Latest<Loaded>): UpstreamAuthority {
  return {
    mode: 'direct',
    async *authorities(signal) {
      for await (const { key, chain, roots } of latest.changes(signal)) {
        const authority: DirectAuthority = { key, chainDer: chain.map((one) => one.raw), rootsDer: roots.map((one) => one.raw) };
        yield authority;
      }
      throw signal.reason;
    },
  };
}

function caBelow(wanted: DiskSettings, host: Host, latest: Latest<Loaded>): UpstreamAuthority {
  return {
    mode: 'ca-below',
    async mintX509Ca(csrDer, preferredTtlMs) {
      // the newest that fits; of what does not, `follow` tells when it lasts
      await refresh(wanted, host, latest).catch(() => {});
      const { key, chain, roots, notAfterMs } = latest.value;
      const [issuer] = chain;
      if (!issuer) throw fail('INTERNAL', 'an upstream authority without a certificate');
      const csr = parseCsr(csrDer);
      csr.verifySignature();
      const id = String(host.trustDomain.id);
      if (csr.uris.length !== 1 || csr.uris[0] !== id)
        throw fail('REQUEST_INVALID', `the CSR of a CA must name ${id} and nothing else, saw ${csr.uris.join(', ') || 'no URI'}`);
      const now = host.clock.now();
      if (!issuer.isWithinValidity(now) || now >= notAfterMs)
        throw fail(
          'FAILED_PRECONDITION',
          `${issuer} is valid from ${iso(issuer.notBeforeMs)} to ${iso(notAfterMs)} (with what is above it), and it is ${iso(now)}: ask the PKI team for a renewed certificate`,
        );
      const { certificate } = await issueX509Ca({
        issuer: { certificate: issuer, key },
        key: { spkiDer: csr.spkiDer },
        trustDomain: host.trustDomain,
        subject: csr.subject,
        notBeforeMs: now - BACKDATE_MS,
        notAfterMs: Math.min(now + preferredTtlMs, notAfterMs),
      });
      return {
        chainDer: [certificate.raw, ...(latest.value.selfSigned ? [] : chain.map((one) => one.raw))],
        rootsDer: roots.map((one) => one.raw),
      };
    },
    async *ownIssuers(signal) {
      for await (const { chain } of latest.changes(signal)) yield chain.slice(0, 1).map((one) => one.raw);
      throw signal.reason;
    },
    async *roots(signal) {
      let before: string | undefined;
      for await (const { roots } of latest.changes(signal)) {
        const now = roots.map((one) => one.sha256).join();
        if (now === before) continue;
        before = now;
        yield roots.map((one) => one.raw);
      }
      throw signal.reason;
    },
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** Reads the set again; a whole and fitting one that differs replaces what we have. */
async function refresh(wanted: DiskSettings, host: Host, latest: Latest<Loaded>): Promise<void> {
  const found = await loadIntermediate(wanted, host.trustDomain, host.clock.now());
  if (found.digest === latest.value.digest) return;
  latest.set(found);
  host.log.info('Upstream authority files changed and were taken over', {
    path: wanted.cert_file_path,
    expires_at: new Date(found.notAfterMs),
  });
}

async function follow(wanted: DiskSettings, host: Host, latest: Latest<Loaded>): Promise<never> {
  let failingSince: number | undefined;
  let warned = false;
  let reminded = 0;
  for (;;) {
    await lookAgain(host);
    try {
      await refresh(wanted, host, latest);
      failingSince = undefined;
      warned = false;
    } catch (error) {
      failingSince ??= host.clock.monotonic();
      if (!warned && host.clock.monotonic() - failingSince >= PATIENCE_MS) {
        warned = true;
        host.log.error('Upstream authority files do not fit; going on with the ones before', { error, path: wanted.cert_file_path });
      }
    }
    reminded = remind(host, latest.value, reminded);
  }
}

/** After a while, or when the operator asks for it. */
async function lookAgain(host: Host): Promise<void> {
  const done = new AbortController();
  const either = AbortSignal.any([host.signal, done.signal]);
  const asked = async () => {
    let first = true;
    for await (const _ of host.reloads.changes(either)) {
      if (!first) return;
      first = false;
    }
  };
  try {
    await Promise.race([host.clock.sleep(LOOK_MS, either, { ref: false }), asked()]);
  } finally {
    done.abort();
  }
  host.signal.throwIfAborted();
}

/** Warns once per threshold of what is left of the lifetime; gives how many thresholds are behind us. */
function remind(host: Host, { notBeforeMs, notAfterMs }: Loaded, reminded: number): number {
  const left = (notAfterMs - host.clock.now()) / (notAfterMs - notBeforeMs);
  const passed = REMIND_AT.filter((part) => left <= part).length;
  if (passed > reminded)
    host.log.warn('The upstream intermediate has no successor yet: ask the PKI team for one', { expires_at: new Date(notAfterMs) });
  return passed;
}
