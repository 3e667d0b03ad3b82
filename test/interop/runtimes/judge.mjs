// Node, Deno and Bun: reads rows on stdin, writes verdicts on stdout.
import * as api from '@warifu/spiffe/jwt';
import { verdictsOf } from './verdicts.mjs';

let text = '';
process.stdin.setEncoding('utf8');
for await (const chunk of process.stdin) text += chunk;
console.log(JSON.stringify(await verdictsOf(api, JSON.parse(text))));
