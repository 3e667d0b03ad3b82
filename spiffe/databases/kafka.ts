/** Kafka through `kafkajs`: its sockets are made and verified by us. And JWT-SVIDs as tokens of SASL/OAUTHBEARER, for kafkajs and @confluentinc/kafka-javascript. */
import type { Socket } from 'node:net';
import type { JwtSource, JwtSourceParams } from '../source/jwt-source.ts';
import type { X509Identity } from '../source/x509-identity.ts';
import { dialler, type SocketSettings, VerifiedSocket } from './verified-socket.ts';

/** What `kafkajsOptions` gives, to be spread into those of `new Kafka`. */
export interface KafkajsOptions {
  readonly ssl: true;
  readonly socketFactory: (to: { readonly host: string; readonly port: number; readonly onConnect: () => void }) => Socket;
}

/** For `new Kafka`. Each broker that the cluster names is dialled so, and must be allowed by `authorize`. Throws REQUEST_INVALID when something is missing. */
export function kafkajsOptions(source: X509Identity, settings: SocketSettings): KafkajsOptions {
  const dial = dialler(source, settings);
  return {
    ssl: true,
    socketFactory({ host, port, onConnect }) {
      const socket = new VerifiedSocket(dial).setKeepAlive(true, 60_000);
      socket.once('connect', onConnect);
      // has all of it that kafkajs uses
      return socket.connect(port, host) as unknown as Socket;
    },
  };
}

/** Which token, and what goes with it. */
export interface OauthBearerParams extends Omit<JwtSourceParams, 'signal'> {
  /** SASL extensions, sent beside the token as they are. */
  readonly extensions?: Readonly<Record<string, string>> | undefined;
}

/** A token as SASL/OAUTHBEARER wants it. */
export interface OauthBearerToken {
  /** The JWT-SVID. */
  readonly value: string;
  /** Its SPIFFE ID. */
  readonly principal: string;
  /** When it ends, in milliseconds since 1970. */
  readonly lifetime: number;
  /** As they were given; left out when there are none. */
  readonly extensions?: Readonly<Record<string, string>>;
}

/**
 * For `sasl` of kafkajs, and of @confluentinc/kafka-javascript's `kafkaJS` block. A token at each time that a broker asks for one, from the source's store while it
 * is in the first half of its life. Rejects as `JwtSource.fetch`. Whoever sees a token can use it: only over TLS to verified brokers.
 */
export function kafkaOauthBearer(
  source: Pick<JwtSource, 'fetch'>,
  params: OauthBearerParams,
): { readonly mechanism: 'oauthbearer'; readonly oauthBearerProvider: () => Promise<OauthBearerToken> } {
  const { extensions, ...wanted } = params;
  return {
    mechanism: 'oauthbearer',
    async oauthBearerProvider() {
      const svid = await source.fetch(wanted);
      return { value: svid.token, principal: String(svid.id), lifetime: svid.expiresMs, ...(extensions && { extensions }) };
    },
  };
}

/** For `oauthbearer_token_refresh_cb` of @confluentinc/kafka-javascript: librdkafka calls it when 80 % of a token's life is over. Otherwise as `kafkaOauthBearer`. */
export function kafkaTokenRefresh(
  source: Pick<JwtSource, 'fetch'>,
  params: OauthBearerParams,
): () => Promise<Omit<OauthBearerToken, 'value'> & { readonly tokenValue: string }> {
  const { oauthBearerProvider } = kafkaOauthBearer(source, params);
  return async () => {
    const { value, ...rest } = await oauthBearerProvider();
    return { tokenValue: value, ...rest };
  };
}
