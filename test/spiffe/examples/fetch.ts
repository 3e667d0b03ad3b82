/** `fetch` with mTLS. */
import { setGlobalDispatcher } from 'undici';
import { matchId, X509Source } from '../../../spiffe/index.ts';
import { SpiffeDispatcher } from '../../../spiffe/tls/undici.ts';

export const source = await X509Source.open();
setGlobalDispatcher(new SpiffeDispatcher({ source, authorize: matchId('spiffe://example.org/orders') }));
export const ask = async (url: string) => (await fetch(url)).text();
