/** Profiles of this process, as V8 makes them, through a session within the process: no inspector is opened. Never a heap snapshot, which would hold keys. */
import { Session } from 'node:inspector/promises';
import type { AlarmClock } from '../spiffe/clock.ts';

export interface Profiled {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

const SECONDS = { preset: 10, most: 60 };
let running = false;

const INDEX = `goroutine  what keeps the event loop busy: open handles, by kind (?debug=1)
profile    CPU for ?seconds=${SECONDS.preset}: a .cpuprofile, for Chrome's and VS Code's tools
heap       where memory was allocated within ?seconds=${SECONDS.preset}: a .heapprofile, without the contents of memory
`;

/** @param name what follows `/debug/pprof/` */
export async function profileOf(name: string, query: URLSearchParams, clock: AlarmClock): Promise<Profiled> {
  switch (name) {
    case '':
      return plain(200, INDEX);
    case 'goroutine':
      return plain(200, handles());
    case 'profile':
      return sampled(query, clock, async (session, wait) => {
        await session.post('Profiler.enable');
        await session.post('Profiler.start');
        await wait();
        return (await session.post('Profiler.stop')).profile;
      });
    case 'heap':
      return sampled(query, clock, async (session, wait) => {
        await session.post('HeapProfiler.startSampling');
        await wait();
        return (await session.post('HeapProfiler.stopSampling')).profile;
      });
    default:
      return plain(404, `not offered here; what is:\n${INDEX}`);
  }
}

const plain = (status: number, body: string): Profiled => ({ status, type: 'text/plain; charset=utf-8', body });

function handles(): string {
  const all = process.getActiveResourcesInfo();
  const kinds = Map.groupBy(all, (kind) => kind);
  return `goroutine profile: total ${all.length}\n${[...kinds].map(([kind, found]) => `${found.length} ${kind}\n`).join('')}`;
}

async function sampled(
  query: URLSearchParams,
  clock: AlarmClock,
  take: (session: Session, wait: () => Promise<void>) => Promise<unknown>,
): Promise<Profiled> {
  const asked = query.get('seconds') ?? String(SECONDS.preset);
  const seconds = /^\d{1,3}$/.test(asked) ? Number(asked) : 0;
  if (seconds < 1 || seconds > SECONDS.most) return plain(400, `seconds must be 1 to ${SECONDS.most}\n`);
  if (running) return plain(409, 'another profile is being made\n');
  running = true;
  const session = new Session();
  session.connect();
  try {
    const profile = await take(session, () => clock.sleep(seconds * 1000, undefined, { ref: false }));
    return { status: 200, type: 'application/json', body: JSON.stringify(profile) };
  } finally {
    session.disconnect();
    running = false;
  }
}
