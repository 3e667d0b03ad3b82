import { Agent } from 'node:https';

export const agent = (key: string, cert: string, ca: string[]) =>
  new Agent({
    key,
    cert,
    ca,
    checkServerIdentity: (_host, { subjectaltname }) =>
      subjectaltname === 'URI:spiffe://example.org/orders' ? undefined : new Error(`another server: ${subjectaltname}`),
  });
