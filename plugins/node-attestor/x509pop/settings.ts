/** Settings of NodeAttestor "x509pop": SPIRE's, as far as they mean something here; the others are refused by name. */
import { z } from 'zod';
import { parsePathTemplate, type PathTemplate, type TemplateFields } from '../../../core/path-template.ts';
import { oneOf, parsedBy, path } from '../../../core/schema.ts';
import { MAX_PRESENTED } from '../../../spiffe/x509/path.ts';

export const NAME = 'x509pop';
const NAMESPACE = `/spire/agent/${NAME}/`;

const NAME_FIELDS: TemplateFields = {
  CommonName: 'string',
  SerialNumber: 'string',
  Country: 'list',
  Organization: 'list',
  OrganizationalUnit: 'list',
  Locality: 'list',
  Province: 'list',
  StreetAddress: 'list',
  PostalCode: 'list',
};

/** What a template may ask for: SPIRE's values, and of the certificate what a path can hold. */
export const TEMPLATE_FIELDS: TemplateFields = {
  PluginName: 'string',
  TrustDomain: 'string',
  Fingerprint: 'string',
  SerialNumberHex: 'string',
  SerialNumber: 'string',
  Subject: NAME_FIELDS,
  Issuer: NAME_FIELDS,
  DNSNames: 'list',
  URISanSelectors: 'map',
};

export const DEFAULT_TEMPLATE = parseTemplate('/{{ .PluginName }}/{{ .Fingerprint }}');

/** Agents of one attestor keep to their own namespace: nobody can be attested into another's. */
function parseTemplate(text: string): PathTemplate {
  const template = parsePathTemplate(text, TEMPLATE_FIELDS);
  const lead = template.leading({ PluginName: NAME });
  if (!lead.text.startsWith(NAMESPACE) && (lead.whole || !NAMESPACE.startsWith(lead.text)))
    throw new Error(
      `it gives paths that begin with ${lead.text}: they must begin with ${NAMESPACE}, so write it as "/{{ .PluginName }}/…"`,
    );
  return template;
}

function refused(why: string) {
  return z
    .unknown()
    .optional()
    .refine((value) => value === undefined || value === '', { message: `not supported by this version: ${why}`, params: { said: true } });
}

const USE_FILES = 'nodes that show an SVID of the trust domain itself; give them certificates of a PKI, and name its CA in ca_bundle_path';

export const serverSettings = z
  .strictObject({
    mode: oneOf('external_pki', 'spiffe')
      .default('external_pki')
      .refine((mode) => mode !== 'spiffe', { message: `"spiffe" is not supported by this version: ${USE_FILES}`, params: { said: true } }),
    /** PEM; roots. Exactly one of these two. */
    ca_bundle_path: path.optional(),
    ca_bundle_paths: z.array(path).optional(),
    agent_path_template: parsedBy(parseTemplate).optional(),
    /** How many certificates may stand between the node's own and a root. */
    max_intermediates: z
      .int()
      .min(1, 'must be greater than 0')
      .max(MAX_PRESENTED - 1)
      .default(4),
    /** Bits. */
    max_rsa_key_size: z.int().min(1, 'must be greater than 0').max(8192).default(8192),
    /** The connection's IP must be among the IP names of the node's certificate. */
    verify_client_ip: z.boolean().default(false),
    svid_prefix: refused('it belongs to mode "spiffe"'),
    spiffe_prefix: refused('it belongs to mode "spiffe"'),
  })
  .superRefine((one, context) => {
    const paths = one.ca_bundle_paths ?? [];
    const message =
      one.ca_bundle_path !== undefined && paths.length > 0
        ? 'only one of ca_bundle_path or ca_bundle_paths can be configured, not both'
        : one.ca_bundle_path === undefined && paths.length === 0
          ? 'one of ca_bundle_path or ca_bundle_paths must be configured'
          : undefined;
    if (message !== undefined) context.addIssue({ code: 'custom', message, path: ['ca_bundle_path'], params: { said: true } });
  });
export type ServerSettings = z.infer<typeof serverSettings>;

export const agentSettings = z.strictObject({
  /** PEM: PKCS#8, SEC1 or PKCS#1. */
  private_key_path: path,
  /** PEM: the node's certificate, then intermediates if there are any. */
  certificate_path: path,
  /** PEM: more intermediates. */
  intermediates_path: path.optional(),
  spiffe_endpoint_socket: refused('name the files of a certificate and its key'),
});
export type AgentSettings = z.infer<typeof agentSettings>;
