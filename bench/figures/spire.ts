/** The few calls of SPIRE's server API that the figures make, with messages written here anew from the published numbers, not with our generated ones. */
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import * as grpc from '@grpc/grpc-js';
import protobuf from 'protobufjs';

const { root } = protobuf.parse(
  `syntax = "proto3";
  message SPIFFEID { string trust_domain = 1; string path = 2; }
  message Selector { string type = 1; string value = 2; }
  message Status { int32 code = 1; string message = 2; }
  message Entry { string id = 1; SPIFFEID spiffe_id = 2; SPIFFEID parent_id = 3; repeated Selector selectors = 4; }
  message X509SVID { repeated bytes cert_chain = 1; SPIFFEID id = 2; int64 expires_at = 3; }
  message Empty {}
  message BatchCreateEntryRequest { repeated Entry entries = 1; }
  message EntryResult { Status status = 1; Entry entry = 2; }
  message BatchCreateEntryResponse { repeated EntryResult results = 1; }
  message BatchDeleteEntryRequest { repeated string ids = 1; }
  message IdResult { Status status = 1; string id = 2; }
  message BatchDeleteEntryResponse { repeated IdResult results = 1; }
  message GetAuthorizedEntriesResponse { repeated Entry entries = 1; }
  message MintX509SVIDRequest { bytes csr = 1; int32 ttl = 2; }
  message MintX509SVIDResponse { X509SVID svid = 1; }
  message MintJWTSVIDRequest { SPIFFEID id = 1; repeated string audience = 2; int32 ttl = 3; }
  message NewX509SVIDParams { string entry_id = 1; bytes csr = 2; }
  message BatchNewX509SVIDRequest { repeated NewX509SVIDParams params = 1; }
  message SvidResult { Status status = 1; X509SVID svid = 2; }
  message BatchNewX509SVIDResponse { repeated SvidResult results = 1; }
  message AttestationData { string type = 1; bytes payload = 2; }
  message AgentX509SVIDParams { bytes csr = 1; }
  message AttestParams { AttestationData data = 1; AgentX509SVIDParams params = 2; }
  message AttestAgentRequest { AttestParams params = 1; bytes challenge_response = 2; }
  message AttestResult { X509SVID svid = 1; bool reattestable = 2; }
  message AttestAgentResponse { AttestResult result = 1; bytes challenge = 2; }`,
  { keepCase: true },
);

const message = (name: string) => root.lookupType(name);
const write = (name: string) => (value: object) => Buffer.from(message(name).encode(message(name).fromObject(value)).finish());
const read = (name: string) => (bytes: Buffer) => message(name).toObject(message(name).decode(bytes), { arrays: true, defaults: true });

interface Status {
  readonly code: number;
  readonly message: string;
}

/** What each call takes and gives, as far as the figures read it. */
interface Calls {
  '/spire.api.server.entry.v1.Entry/BatchCreateEntry': [object, { results: { status: Status; entry: { id: string } }[] }];
  '/spire.api.server.entry.v1.Entry/BatchDeleteEntry': [object, { results: { status: Status }[] }];
  '/spire.api.server.entry.v1.Entry/GetAuthorizedEntries': [object, { entries: { id: string }[] }];
  '/spire.api.server.svid.v1.SVID/MintX509SVID': [object, { svid: { cert_chain: Buffer[] } }];
  '/spire.api.server.svid.v1.SVID/MintJWTSVID': [object, object];
  '/spire.api.server.svid.v1.SVID/BatchNewX509SVID': [object, { results: { status: Status; svid: { cert_chain: Buffer[] } }[] }];
}

const TYPES: { readonly [K in keyof Calls]: readonly [request: string, response: string] } = {
  '/spire.api.server.entry.v1.Entry/BatchCreateEntry': ['BatchCreateEntryRequest', 'BatchCreateEntryResponse'],
  '/spire.api.server.entry.v1.Entry/BatchDeleteEntry': ['BatchDeleteEntryRequest', 'BatchDeleteEntryResponse'],
  '/spire.api.server.entry.v1.Entry/GetAuthorizedEntries': ['Empty', 'GetAuthorizedEntriesResponse'],
  '/spire.api.server.svid.v1.SVID/MintX509SVID': ['MintX509SVIDRequest', 'MintX509SVIDResponse'],
  '/spire.api.server.svid.v1.SVID/MintJWTSVID': ['MintJWTSVIDRequest', 'Empty'],
  '/spire.api.server.svid.v1.SVID/BatchNewX509SVID': ['BatchNewX509SVIDRequest', 'BatchNewX509SVIDResponse'],
};

/** A connection to the server. `close` it. */
export class Spire {
  readonly #client: grpc.Client;

  private constructor(target: string, credentials: grpc.ChannelCredentials) {
    this.#client = new grpc.Client(target, credentials, { 'grpc.max_receive_message_length': -1 });
  }

  static admin(socketPath: string): Spire {
    return new Spire(`unix:${socketPath}`, grpc.credentials.createInsecure());
  }

  /** Over TLS, with or without a certificate of one's own; the server's chain is verified under `rootPath`, its name is a SPIFFE ID. */
  static server(port: number, trustDomain: string, rootPath: string, own?: { readonly key: Buffer; readonly chain: Buffer }): Spire {
    const wanted = `URI:spiffe://${trustDomain}/spire/server`;
    const credentials = grpc.credentials.createSsl(readFileSync(rootPath), own?.key, own?.chain, {
      checkServerIdentity: (_host, peer) =>
        peer.subjectaltname === wanted ? undefined : new Error(`the server is ${peer.subjectaltname}, not ${wanted}`),
    });
    return new Spire(`127.0.0.1:${port}`, credentials);
  }

  call<M extends keyof Calls>(method: M, request: Calls[M][0]): Promise<Calls[M][1]> {
    const [from, to] = TYPES[method];
    const unary = promisify((done: (fault: Error | null, answer?: Calls[M][1]) => void) => {
      this.#client.makeUnaryRequest(method, write(from), (bytes) => read(to)(bytes) as Calls[M][1], request, done);
    });
    return unary() as Promise<Calls[M][1]>;
  }

  /** Attests with a join token; gives the agent's chain, leaf first. */
  attest(token: string, csr: Uint8Array): Promise<Buffer[]> {
    return new Promise((resolve, reject) => {
      const dialogue = this.#client.makeBidiStreamRequest(
        '/spire.api.server.agent.v1.Agent/AttestAgent',
        write('AttestAgentRequest'),
        (bytes) => read('AttestAgentResponse')(bytes) as { result?: { svid: { cert_chain: Buffer[] } } },
      );
      dialogue.once('data', (answer: { result?: { svid: { cert_chain: Buffer[] } } }) => {
        if (answer.result) resolve(answer.result.svid.cert_chain);
        else reject(new Error('attestation gave no result'));
        dialogue.end();
      });
      dialogue.on('error', reject);
      dialogue.write({ params: { data: { type: 'join_token', payload: Buffer.from(token) }, params: { csr } } });
    });
  }

  close(): void {
    this.#client.close();
  }
}

/** `spiffe://domain/path` as the wire has it. */
export function wireId(id: string): { trust_domain: string; path: string } {
  const url = new URL(id);
  return { trust_domain: url.host, path: url.pathname };
}
