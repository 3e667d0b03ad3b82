import { createServer } from 'node:tls';

export const server = (key: string, cert: string, ca: string[]) =>
  createServer({ key, cert, ca, requestCert: true, rejectUnauthorized: true }, (socket) => {
    const caller = socket.getPeerCertificate().subjectaltname;
    socket.end(caller === 'URI:spiffe://example.org/web' ? 'welcome' : 'go away');
  });
