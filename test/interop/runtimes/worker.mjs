// workerd: rows in the request, verdicts in the answer. Neither Node's modules nor `process` are there.
import * as api from '@warifu/spiffe/jwt';
import { verdictsOf } from './verdicts.mjs';

export default {
  async fetch(request) {
    if (globalThis.process?.getBuiltinModule?.('node:crypto') || globalThis.Buffer)
      return new Response('this is no bare runtime', { status: 500 });
    return Response.json(await verdictsOf(api, await request.json()));
  },
};
