/** How this house refuses: one class, a coarse code that drives the gRPC status, a fine reason that names the rule. */

/**
 * Coarse: what kind of failure it is. Stable. Codes that only programs know are in `core/errors.ts`.
 * Each says: what was seen and what is wanted → what to do. `npm run api` makes docs/errors.md of it.
 */
export type Code =
  /** A text that is no SPIFFE ID or trust domain, seen where one is wanted. The reason names the rule → correct the setting or call that it came from; nothing is folded or mended */
  | 'ID_INVALID'
  /** A certificate, chain, key or token that breaks a rule of its form, whoever signed it. The reason names the rule → have its issuer mend it; trusting another bundle helps nothing */
  | 'SVID_INVALID'
  /** An SVID outside of its dates. Of a peer, its own source has stopped; of our own, no newer one has come → look at that workload's agent, then at both clocks */
  | 'SVID_EXPIRED'
  /** An SVID of good form that no authority in the bundle of its trust domain vouches for → compare its issuer with the bundle: an older bundle, or another root */
  | 'SVID_UNTRUSTED'
  /** A bundle that is malformed; whatever came before stays in use → have its publisher mend it */
  | 'BUNDLE_INVALID'
  /** Nobody here trusts the trust domain that the SVID names → federate with that trust domain, or refuse its callers for good */
  | 'BUNDLE_MISSING'
  /** The call itself cannot be right: an option, a setting, a file, or (from a Workload API) a request that its server refuses. The same call fails again → correct the call */
  | 'REQUEST_INVALID'
  /** What was named is not there: no SVID with that hint, no endpoint of that trust domain → name another, or have it made */
  | 'NOT_FOUND'
  /** The other side has it already; only servers say so → use what is there */
  | 'ALREADY_EXISTS'
  /** Known, and not allowed: a matcher refused a verified peer, or the Workload API has no identity for this process (any more) → change who may, or register the workload; sources go on asking */
  | 'DENIED'
  /** Nobody has been proven: no credential, or one that proves nothing → show one: a JWT-SVID as bearer, an X.509-SVID in the handshake */
  | 'UNAUTHENTICATED'
  /** The other side is not in the state that the call needs; only servers say so → do first what the message names */
  | 'FAILED_PRECONDITION'
  /** A limit of the other side, or a message larger than is read → ask less often, or for less */
  | 'RESOURCE_EXHAUSTED'
  /** The other side gave the call up for another that came first; only servers say so → try again */
  | 'ABORTED'
  /** Not there: the Workload API lacks the call, this runtime the algorithm, this framework the connection. Sources end with it → use another server, runtime or way */
  | 'UNIMPLEMENTED'
  /** Nobody answers, or there is nothing yet: the agent is away, a source waits for its first answer. Sources try again for ever → see whether the agent runs and the address is its own; await `ready(signal)`, which says what is missing */
  | 'UNAVAILABLE'
  /** No answer in the time that the call had → give it longer, or see what holds the other side up */
  | 'DEADLINE_EXCEEDED'
  /** Nobody wants the answer any more: a signal has aborted, or the other side says that ours did → nothing */
  | 'CANCELLED'
  /** A fault of ours or of the other side, or a gRPC status without a meaning of its own. The cause tells more → report it, with the cause */
  | 'INTERNAL'
  /** Used after `close()`: source, client or endpoint → close later, or open another */
  | 'CLOSED';

/**
 * Fine: which rule was broken. One per rule; what tests and docs name. A new rule adds a row here.
 * Each says: what was seen and what is wanted → what to do · the section of the specification, and our numbers in docs/spec.md.
 * Prefix says the family: ID_ (SPIFFE-ID), DER_, PEM_, JSON_, KEY_, CSR_, X509_ (certificates and X509-SVID), JWT_ (JWT-SVID), BUNDLE_, ENDPOINT_ (Workload Endpoint), WAPI_, FED_ (bundle endpoints), HTTP_, XFCC_
 * (x-forwarded-client-cert).
 */
export type Reason =
  /** Empty → give the SPIFFE ID that is meant · SPIFFE-ID §2, ID-2 */
  | 'ID_EMPTY'
  /** Does not begin with `spiffe://`, in lower case → write the whole URI · SPIFFE-ID §2, ID-2 */
  | 'ID_SCHEME'
  /** Nothing between `spiffe://` and the path → name the trust domain · SPIFFE-ID §2.1, ID-3 */
  | 'ID_TRUST_DOMAIN_MISSING'
  /** A trust domain with another character than `a-z 0-9 . - _`: upper case, a port, a user, something percent-encoded → write it in lower case, the name alone · SPIFFE-ID §2.1, ID-6, ID-7, ID-8, ID-9, ID-10 */
  | 'ID_TRUST_DOMAIN_CHAR'
  /** A trust domain of more than 255 bytes → shorten it · SPIFFE-ID §2.3, ID-23 */
  | 'ID_TRUST_DOMAIN_TOO_LONG'
  /** A path segment with another character than `A-Z a-z 0-9 . - _`: a space, `%`, a query, a fragment → use those alone; nothing is percent-decoded · SPIFFE-ID §2.2, ID-4, ID-5, ID-15, ID-19 */
  | 'ID_PATH_CHAR'
  /** A path that does not begin with a slash → put one before it · SPIFFE-ID §2.2, ID-19 */
  | 'ID_PATH_NO_LEADING_SLASH'
  /** Two slashes one behind the other → take one away · SPIFFE-ID §2.2, ID-16 */
  | 'ID_PATH_EMPTY_SEGMENT'
  /** A segment `.` or `..` → write the path that is meant · SPIFFE-ID §2.2, ID-17 */
  | 'ID_PATH_DOT_SEGMENT'
  /** A slash at the end; `spiffe://example.org/` is no trust domain's ID either → leave it out · SPIFFE-ID §2.2, ID-18 */
  | 'ID_PATH_TRAILING_SLASH'
  /** A SPIFFE ID of more than 2048 bytes → shorten the path · SPIFFE-ID §2.3, ID-21, ID-22 */
  | 'ID_TOO_LONG'
  /** A SPIFFE ID of another trust domain than this part is for; the server and its clients say so → name one of this trust domain, or ask the server of the other · SPIFFE-ID §3.1, ID-38 */
  | 'ID_NOT_MEMBER'
  /** Verified, and not who may: the message says who was seen and who is wanted → change the matcher (`authorize`), or call as somebody else · X509-SVID §5.2 */
  | 'ID_NOT_ALLOWED'
  /** A value that reaches past its end: cut off in a file or on the way → get it whole · X509-SVID §5.1, X509-32 */
  | 'DER_TRUNCATED'
  /** Bytes behind the last value: two things in one, or padding → hand over exactly one certificate · X509-SVID §5.1, X509-32 */
  | 'DER_TRAILING'
  /** Another kind of value than belongs there: not a certificate, or a forged one → look at it with `openssl asn1parse` · X509-SVID §5.1, X509-32 */
  | 'DER_TAG'
  /** A length that is indefinite, not minimal, or too long: BER, not DER → have its issuer write DER · X509-SVID §5.1, X509-32 */
  | 'DER_LENGTH'
  /** An integer that is empty, not minimal, or out of range → have its issuer write DER · X509-SVID §5.1, X509-32 */
  | 'DER_INTEGER'
  /** A boolean that is neither 0x00 nor 0xff → have its issuer write DER · X509-SVID §5.1, X509-32 */
  | 'DER_BOOLEAN'
  /** Bits with wrong padding → have its issuer write DER · X509-SVID §5.1, X509-32 */
  | 'DER_BIT_STRING'
  /** An object identifier that is malformed or not minimal → have its issuer write DER · X509-SVID §5.1, X509-32 */
  | 'DER_OID'
  /** A time in another form than RFC 5280 has: UTCTime to 2049, GeneralizedTime after it, in seconds, ending in `Z` → have its issuer write those · RFC 5280 §4.1.2.5, X509-32 */
  | 'DER_TIME'
  /** A default value that is written out, which DER forbids → have its issuer write DER · X509-SVID §5.1, X509-32 */
  | 'DER_DEFAULT'
  /** PEM with a line missing, no canonical base64, longer than 8 MiB, or with blocks that do not belong: a key among authorities, two keys → write it anew from the DER · RFC 7468 */
  | 'PEM_MALFORMED'
  /** A block with headers: an encrypted key, most often → decrypt it first, to PKCS#8 */
  | 'PEM_HEADERS'
  /** No certificate, or no `PRIVATE KEY`, in the text. `RSA PRIVATE KEY` and `EC PRIVATE KEY` are other forms → `openssl pkcs8 -topk8 -nocrypt` · RFC 7468 */
  | 'PEM_MISSING'
  /** No JSON, or not in UTF-8 → the message says at which character */
  | 'JSON_SYNTAX'
  /** A member twice: readers differ on which counts → have its writer write it once · SPIFFE Trust Domain and Bundle §5.1.1, TDB-30 */
  | 'JSON_DUPLICATE'
  /** Nested deeper than anything that SPIFFE writes → have its writer look at what it sends */
  | 'JSON_TOO_DEEP'
  /** Longer than is read: 4 MiB of a bundle, 64 KiB of a token → see what it holds */
  | 'JSON_TOO_LARGE'
  /** A key that is none: not PKCS#8, public where a private one belongs, halves that do not fit, an EC point that is compressed → export it anew, unencrypted, as PKCS#8 */
  | 'KEY_MALFORMED'
  /** A kind of key that nobody here verifies with → for SVIDs EC P-256, P-384, P-521, RSA or Ed25519; for JWT authorities EC or RSA · JWT-SVID §2.1, JWT-5 */
  | 'KEY_UNSUPPORTED'
  /** RSA of fewer than 2048 bits → have a larger key made, or EC P-256 */
  | 'KEY_WEAK'
  /** RSA of more than 8192 bits: a signature check that strangers could make cost us milliseconds → have a smaller key made */
  | 'KEY_TOO_LARGE'
  /** The private key is not that of the certificate: files of two moments, most often → write both at once; a file source reads them again */
  | 'KEY_MISMATCH'
  /** A request for a certificate that is longer than any, or with too many attributes → send a plain one: the server takes its public key alone */
  | 'CSR_TOO_LARGE'
  /** A request of another version than 1 → make it anew · RFC 2986 §4.1 */
  | 'CSR_VERSION'
  /** A request that its own key did not sign → sign it with the key that is in it · RFC 2986 §4.2 */
  | 'CSR_SIGNATURE'
  /** A request signed by an algorithm that is not supported, or does not fit the key → ECDSA or RSA with SHA-256, or Ed25519 */
  | 'CSR_SIGNATURE_ALGORITHM'
  /** A certificate of more than 64 KiB, or with more extensions or names than any in use → have its issuer leave out what is not needed */
  | 'X509_TOO_LARGE'
  /** A certificate of another version than 3, which has no extensions and so no SPIFFE ID → have it issued as version 3 · X509-SVID §2, X509-1 */
  | 'X509_VERSION'
  /** A serial number that is negative or longer than 20 octets → have it issued anew · RFC 5280 §4.1.2.2, X509-32 */
  | 'X509_SERIAL'
  /** A subject or issuer with an empty part, or a value that is no text → have it issued anew · RFC 5280 §4.1.2.4, X509-32 */
  | 'X509_NAME'
  /** It ends before it begins → have it issued anew · RFC 5280 §4.1.2.5, X509-32 */
  | 'X509_VALIDITY'
  /** An extension that is malformed, empty, or critical where it must not be → have it issued anew · RFC 5280 §4.2, X509-32 */
  | 'X509_EXTENSION'
  /** One extension twice: readers differ on which counts → have it issued anew · RFC 5280 §4.2, X509-32 */
  | 'X509_EXTENSION_REPEATED'
  /** A path length on a certificate that is no CA → have it issued anew · RFC 5280 §4.2.1.9, X509-32 */
  | 'X509_BASIC_CONSTRAINTS'
  /** A key usage without a single bit → have it issued anew · RFC 5280 §4.2.1.3, X509-32 */
  | 'X509_KEY_USAGE'
  /** An extended key usage without a single purpose → have it issued anew · RFC 5280 §4.2.1.12, X509-32 */
  | 'X509_EXT_KEY_USAGE'
  /** Alternative names that are none: an empty list, an unknown form, an IP of another length than 4 or 16 → have it issued anew · RFC 5280 §4.2.1.6, X509-32 */
  | 'X509_SAN'
  /** An alternative name with a character that is not printable ASCII, such as NUL: readers cut it at different places → have it issued anew · RFC 5280 §4.2.1.6, X509-32 */
  | 'X509_SAN_CHAR'
  /** Name constraints that are malformed or constrain nothing → have the CA issued anew · RFC 5280 §4.2.1.10, X509-18 */
  | 'X509_NAME_CONSTRAINTS'
  /** Two different signature algorithms in one certificate: inside and outside of what is signed → have it issued anew · RFC 5280 §4.1.1.2, X509-32 */
  | 'X509_SIGNATURE_ALGORITHM_MISMATCH'
  /** No certificate: the peer showed none, or the connection was not verified here → have the caller show its X.509-SVID; serve by `@warifu/spiffe/https`, `/http2` or `/grpc` · X509-SVID §5.1, X509-32 */
  | 'X509_CHAIN_EMPTY'
  /** More than 8 certificates → show the leaf and the intermediates that it needs */
  | 'X509_CHAIN_TOO_LONG'
  /** No URI among the alternative names, and so no SPIFFE ID: a certificate of a web site or of another PKI → show an X.509-SVID · X509-SVID §2, X509-3 */
  | 'X509_URI_SAN_MISSING'
  /** More than one URI among the alternative names: which one is it? → have it issued with one · X509-SVID §2, X509-3 */
  | 'X509_URI_SAN_MANY'
  /** A leaf with a trust domain's own ID, which names no workload → register the workload with a path · X509-SVID §5.2, X509-38 */
  | 'X509_LEAF_PATH_MISSING'
  /** A leaf that is a CA: a signing certificate never says who calls → show the workload's own SVID · X509-SVID §5.2, X509-34 */
  | 'X509_LEAF_CA'
  /** A leaf without basic constraints; asked of what is issued here → write CA:FALSE · X509-SVID §4.1, X509-17 */
  | 'X509_LEAF_BASIC_CONSTRAINTS_MISSING'
  /** A leaf that may not sign, and so prove nothing → have it issued with digitalSignature · X509-SVID §4.3, X509-24 */
  | 'X509_LEAF_DIGITAL_SIGNATURE_MISSING'
  /** A leaf that may sign certificates → have it issued without keyCertSign · X509-SVID §5.2, X509-35 */
  | 'X509_LEAF_CERT_SIGN'
  /** A leaf that may sign revocation lists → have it issued without cRLSign · X509-SVID §5.2, X509-36 */
  | 'X509_LEAF_CRL_SIGN'
  /** A leaf with other usages than digitalSignature, keyEncipherment and keyAgreement; asked of what is issued here → leave them out · X509-SVID §4.3, X509-25 */
  | 'X509_LEAF_KEY_USAGE_OTHER'
  /** A leaf that does not say what it is for; asked of what is issued here → write serverAuth and clientAuth · X509-SVID §4.4, X509-28 */
  | 'X509_LEAF_EKU_MISSING'
  /** A leaf for servers alone, or for clients alone → have it issued for both · X509-SVID §4.4, X509-30 */
  | 'X509_LEAF_EKU'
  /** An empty subject beside alternative names that are not critical; asked of what is issued here → make them critical · X509-SVID §3.1, X509-8 */
  | 'X509_SAN_NOT_CRITICAL'
  /** No key usage → have it issued with one · X509-SVID §4.3, X509-20 */
  | 'X509_KEY_USAGE_MISSING'
  /** A key usage that is not critical; asked of what is issued here → make it critical · X509-SVID §4.3, X509-21 */
  | 'X509_KEY_USAGE_NOT_CRITICAL'
  /** A signing certificate that is no CA: a leaf has signed another → show the chain that leads to the bundle · X509-SVID §4.1, X509-16 */
  | 'X509_AUTHORITY_CA'
  /** A CA whose basic constraints are not critical; asked of what is issued here → make them critical · X509-SVID §4.1, X509-16 */
  | 'X509_AUTHORITY_BASIC_CONSTRAINTS_NOT_CRITICAL'
  /** A CA that may not sign certificates → have it issued with keyCertSign · X509-SVID §4.3, X509-22 */
  | 'X509_AUTHORITY_CERT_SIGN_MISSING'
  /** A CA with other usages than keyCertSign and cRLSign; asked of what is issued here → leave them out · X509-SVID Appendix A, X509-49 */
  | 'X509_AUTHORITY_KEY_USAGE_OTHER'
  /** A CA whose SPIFFE ID has a path → have it issued with `spiffe://` and the trust domain alone · X509-SVID §3.2, X509-11 */
  | 'X509_AUTHORITY_PATH'
  /** A CA of another trust domain above this leaf → the leaf's own trust domain must sign it; a federated root signs nothing of ours · X509-SVID §3.2, X509-12 */
  | 'X509_AUTHORITY_TRUST_DOMAIN'
  /** A leaf that begins later → set the clocks: the issuer's runs ahead, or ours behind · X509-SVID §5.1, X509-32 */
  | 'X509_NOT_YET_VALID'
  /** A leaf that has ended → see why no newer one has come to who shows it · X509-SVID §5.1, X509-32 */
  | 'X509_EXPIRED'
  /** A critical extension that is not understood here; the message has its OID → have it issued without, or not critical · RFC 5280 §4.2, X509-32 */
  | 'X509_UNKNOWN_CRITICAL'
  /** Nobody here has the X.509 bundle of the trust domain that the leaf names → federate, or see what the source waits for · X509-SVID §5.2, X509-39, TDB-2 */
  | 'X509_BUNDLE_MISSING'
  /** That bundle has no authorities: its trust domain has taken everything back → ask its operator · SPIFFE Trust Domain and Bundle §4.1.3, TDB-19 */
  | 'X509_BUNDLE_EMPTY'
  /** No authority of that bundle, nor an intermediate that came along, has the name of the issuer → have the peer show its intermediates; look whether the bundle is the newest · X509-SVID §5.2, X509-39, ID-27 */
  | 'X509_ISSUER_UNKNOWN'
  /** A CA on the way that begins later → set the clocks · X509-SVID §5.1, X509-32 */
  | 'X509_ISSUER_NOT_YET_VALID'
  /** A CA on the way that has ended → have it renewed, and the SVIDs with it · X509-SVID §5.1, X509-32 */
  | 'X509_ISSUER_EXPIRED'
  /** More CAs below one than its path length allows → sign directly, or have a CA with a longer path · X509-SVID §4.1, X509-15 */
  | 'X509_PATH_LEN'
  /** A name that a CA above may not vouch for → have the constraints permit the trust domain, or the name left out · X509-SVID §4.2, X509-18 */
  | 'X509_OUTSIDE_NAME_CONSTRAINTS'
  /** Signed by an algorithm that is not accepted (SHA-1, MD5, DSA), or that does not fit the issuer's key → have it signed with SHA-256 or better · X509-SVID §5.1, X509-32 */
  | 'X509_SIGNATURE_ALGORITHM'
  /** The signature is not that of the issuer whose name it bears: forged, or the CA has a new key under its old name → get the newest bundle · X509-SVID §5.2, X509-39, ID-27 */
  | 'X509_SIGNATURE'
  /** More signatures to check than any real chain has: made-up certificates → have the peer show only its chain */
  | 'X509_WORK_LIMIT'
  /** A good path, but not through an issuer that the caller of `verifyX509Svid` demands (`through`) → show an SVID that this CA has issued */
  | 'X509_NOT_THROUGH'
  /** A certificate that would end after the CA that signs it; the server says so → ask for less, or have the CA renewed */
  | 'X509_OUTLIVES_ISSUER'
  /** No object with a list `keys`; `null` is none. An empty list is one → have its publisher write it · SPIFFE Trust Domain and Bundle §4.1.3, TDB-15 */
  | 'BUNDLE_KEYS_MISSING'
  /** A JWT authority without `kid` → have its publisher name it · JWT-SVID §6.1, JWT-29 */
  | 'BUNDLE_KID_MISSING'
  /** Two JWT authorities under one `kid` → have its publisher name them apart · JWT-SVID §6.1, JWT-29 */
  | 'BUNDLE_KID_REPEATED'
  /** Two bundles of one trust domain in a set: which one to trust is not ours to guess → keep one, or `set.with(bundle)` · SPIFFE Trust Domain and Bundle §5.1.1, TDB-30 */
  | 'BUNDLE_REPEATED'
  /** A JWK of a known kind that is malformed, or holds a private key → have its publisher mend it; a private key must be replaced · SPIFFE Trust Domain and Bundle §4.2, TDB-16 */
  | 'BUNDLE_JWK'
  /** An `x5c` that is not standard base64, or not the certificate of the key beside it → have its publisher mend it · X509-SVID §6.1, X509-43 */
  | 'BUNDLE_X5C'
  /** `spiffe_sequence` is no integer from 0 to 2^64−1 → have its publisher mend it · SPIFFE Trust Domain and Bundle §4.1.1, TDB-9 */
  | 'BUNDLE_SEQUENCE'
  /** `spiffe_refresh_hint` is no integer number of seconds → have its publisher mend it · SPIFFE Trust Domain and Bundle §4.1.2, TDB-13 */
  | 'BUNDLE_REFRESH_HINT'
  /** A file of more than 16 MiB (PEM) or 4 MiB (JWKS) → look what it is */
  | 'BUNDLE_TOO_LARGE'
  /** A token of more than 64 KiB → leave claims out */
  | 'JWT_TOO_LARGE'
  /** Not three parts joined by dots: JSON serialization, an encrypted token (JWE), or something else → send a compact JWS · JWT-SVID §5.1, JWT-1, JWT-2 */
  | 'JWT_SERIALIZATION'
  /** A part that is not base64url, or has padding → send the token as it was issued · JWT-SVID §4, JWT-23 */
  | 'JWT_ENCODING'
  /** A header or payload that is no JSON object → send the token as it was issued · JWT-SVID §4, JWT-23 */
  | 'JWT_JSON'
  /** An `alg` that is none of the nine: `none`, HMAC, EdDSA, or no `alg` → have it signed by RS, ES or PS with 256, 384 or 512 · JWT-SVID §2.1, JWT-5, JWT-6 */
  | 'JWT_ALG'
  /** A `typ` that is neither `JWT` nor `JOSE`, such as `at+jwt` or `wit+jwt`: another kind of token → send a JWT-SVID · JWT-SVID §2.3, JWT-10 */
  | 'JWT_TYP'
  /** A `crit` or `b64` header, which nobody here understands → have it issued without · RFC 7515 §4.1.11, JWT-23 */
  | 'JWT_CRIT'
  /** A `kid` that is empty or no text → have it issued with the authority's id · JWT-SVID §2.2, JWT-9 */
  | 'JWT_KID'
  /** No `kid`, which SPIFFE lets issuers leave out → have it issued with one, or validate with `kid: 'optional'` · JWT-SVID §2.2, JWT-9 */
  | 'JWT_KID_MISSING'
  /** A `sub` that is no SPIFFE ID with a path → a token of another issuer; send a JWT-SVID · JWT-SVID §3.1, JWT-13 */
  | 'JWT_SUB'
  /** An `aud` that is not one or more texts → have it issued anew · JWT-SVID §3.2, JWT-15 */
  | 'JWT_AUD'
  /** No `aud`: a token for everybody → ask for one with an audience · JWT-SVID §3.2, JWT-15 */
  | 'JWT_AUD_MISSING'
  /** A token for somebody else: none of its audiences is expected here → have the caller ask for this audience, letter for letter · JWT-SVID §3.2, JWT-16 */
  | 'JWT_AUD_UNEXPECTED'
  /** No `exp`: a token for ever → have it issued with one · JWT-SVID §3.3, JWT-20 */
  | 'JWT_EXP_MISSING'
  /** An `exp` that is no date in seconds; as REQUEST_INVALID, an option about time that is out of range → have it issued anew, or correct the option · JWT-SVID §3.3, JWT-20 */
  | 'JWT_EXP'
  /** A token that has ended, the leeway included → fetch one for each call: `JwtSource` keeps them fresh · JWT-SVID §3.3, JWT-20 */
  | 'JWT_EXPIRED'
  /** An `exp` further ahead than `maxLifetimeMs` allows → have it issued for less long · JWT-SVID §3.3 */
  | 'JWT_LIFETIME'
  /** An `nbf` that is no date in seconds → have it issued anew · RFC 7519 §4.1.5, JWT-24 */
  | 'JWT_NBF'
  /** A token that begins later, the leeway included → set the clocks · RFC 7519 §4.1.5, JWT-24 */
  | 'JWT_NOT_YET_VALID'
  /** Nobody here has the JWT bundle of the trust domain that `sub` names → federate, or see what the source waits for · JWT-SVID §6.2, ID-27, TDB-2 */
  | 'JWT_BUNDLE_MISSING'
  /** That bundle has no JWT authorities: its trust domain issues no JWT-SVIDs, or has taken them back → ask its operator · JWT-SVID §6.2, JWT-31, TDB-19 */
  | 'JWT_AUTHORITIES_MISSING'
  /** No JWT authority of that trust domain has this `kid` → get the newest bundle; a key that is gone validates nothing · JWT-SVID §2.2, JWT-9, ID-27 */
  | 'JWT_AUTHORITY_UNKNOWN'
  /** The authority that `kid` names cannot sign by this `alg` → have it issued anew · JWT-SVID §2.1, JWT-23 */
  | 'JWT_KEY_TYPE'
  /** The signature is not that of the authority: forged, or changed on the way → send the token as it was issued · JWT-SVID §4, JWT-23, ID-27 */
  | 'JWT_SIGNATURE'
  /** This runtime cannot check this algorithm, or not without waiting: no word on the signature → `validateJwtSvid` instead of `validateJwtSvidSync`, or another runtime */
  | 'JWT_RUNTIME'
  /** Who validates, or asks for a token, names no audience → name one: without it a token for anybody would pass · JWT-SVID §3.2, JWT-14, JWT-34 */
  | 'JWT_EXPECTED_AUDIENCE'
  /** No address was given and `SPIFFE_ENDPOINT_SOCKET` is not set → set it, or `address` · SPIFFE Workload Endpoint §4, WE-10 */
  | 'ENDPOINT_MISSING'
  /** Neither `unix:` nor `tcp:` → write `unix:///run/spire/agent-sockets/api.sock`, the whole URI · SPIFFE Workload Endpoint §4, WE-11 */
  | 'ENDPOINT_SCHEME'
  /** A query, a fragment, a user, or a path behind a port → take it away · SPIFFE Workload Endpoint §4, WE-12, WE-14, WE-17 */
  | 'ENDPOINT_COMPONENT'
  /** A host in a `unix` address: two slashes where three belong → write `unix:///path` · SPIFFE Workload Endpoint §4, WE-12 */
  | 'ENDPOINT_UNIX_AUTHORITY'
  /** A path that is missing, relative, malformed or longer than a socket's may be → write it from the root on · SPIFFE Workload Endpoint §4, WE-13 */
  | 'ENDPOINT_UNIX_PATH'
  /** A host that is no IP address → write the address; names are not looked up · SPIFFE Workload Endpoint §4, WE-15 */
  | 'ENDPOINT_TCP_HOST'
  /** No port from 1 to 65535 → write it · SPIFFE Workload Endpoint §4, WE-16 */
  | 'ENDPOINT_TCP_PORT'
  /** An answer of the Workload API that lacks what it must have; what came before stays in use → report it to whoever wrote that server · SPIFFE Workload API §4.5, WAPI-18 */
  | 'WAPI_FIELD_MISSING'
  /** An answer of the Workload API that contradicts itself, such as an SVID of another ID than beside it; what came before stays in use → report it to whoever wrote that server · SPIFFE Workload API §4.5, WAPI-18 */
  | 'WAPI_MISMATCH'
  /** No trust domain beside the URL of a bundle endpoint, or a bundle of another → name it: it is never guessed · SPIFFE Federation §5.1, FED-17, FED-33 */
  | 'FED_TRUST_DOMAIN'
  /** Two bundle endpoints of one trust domain: which one to believe is not ours to guess → follow one · SPIFFE Federation §5.1, FED-17 */
  | 'FED_REPEATED'
  /** That trust domain is not followed, or not any more → `follow` it · SPIFFE Federation §6.3, FED-64 */
  | 'FED_NOT_FOLLOWED'
  /** A profile that is neither `https_web` nor `https_spiffe` → name which · SPIFFE Federation §5.1, FED-17 */
  | 'FED_PROFILE'
  /** A `ca` that has no certificates, or something else beside them → give the PEM of the authorities · SPIFFE Federation §5.2.1.4, FED-32 */
  | 'FED_CA'
  /** `https_spiffe` without the SPIFFE ID of the endpoint → ask who runs it · SPIFFE Federation §5.2.2.2, FED-40 */
  | 'FED_ENDPOINT_ID'
  /** `https_spiffe` without a bundle to begin with → get one by hand from who runs the endpoint · SPIFFE Federation §5.2.2.2, FED-41 */
  | 'FED_ENDPOINT_BUNDLES'
  /** A limit that is no integer, or out of range; the message has the range → correct it */
  | 'FED_LIMIT'
  /** No URL, or one that readers would take differently → write `https://host/path` · SPIFFE Federation §5.2.1.1, FED-17 */
  | 'FED_URL'
  /** A URL that does not begin with `https:` → use https · SPIFFE Federation §5.2.1.1, FED-20, FED-38 */
  | 'FED_URL_SCHEME'
  /** A URL with a user → take it away · SPIFFE Federation §5.2.1.1, FED-21, FED-39 */
  | 'FED_URL_USERINFO'
  /** No connection to the bundle endpoint → see the cause: the name, the address, the network · SPIFFE Federation §5.2 */
  | 'FED_UNREACHABLE'
  /** No TLS with the bundle endpoint, or a certificate that proves nothing → see the cause: its authority, its host, its dates · SPIFFE Federation §5.2.1.4, FED-32 */
  | 'FED_TLS'
  /** No bundle within `timeoutMs` → give it longer, or ask who runs the endpoint */
  | 'FED_TIMEOUT'
  /** The connection ended before the answer did → it is tried again */
  | 'FED_BROKEN_OFF'
  /** Another status than 200 → ask who runs the endpoint · SPIFFE Federation §4, FED-1 */
  | 'FED_STATUS'
  /** A redirect that is not followed: of `https_spiffe`, or to where no endpoint can be → configure where it leads to · SPIFFE Federation §5.2.1.4, FED-34, FED-58 */
  | 'FED_REDIRECT'
  /** More redirects than `maxRedirects` → configure where they lead to · SPIFFE Federation §5.2.1.4, FED-34 */
  | 'FED_REDIRECTS'
  /** An answer of more than `maxBytes` → look what it is */
  | 'FED_TOO_LARGE'
  /** A lower `spiffe_sequence` than before: an old bundle; the newer stays in use → ask its publisher; if it has gone back for good, `unfollow` and `follow` · SPIFFE Federation §4.2, FED-9 */
  | 'FED_SEQUENCE'
  /** No `Authorization: Bearer` → send the JWT-SVID so · JWT-SVID §5.2, JWT-25 */
  | 'HTTP_CREDENTIAL_MISSING'
  /** An `Authorization` that is not `Bearer` and one token → send the JWT-SVID so · JWT-SVID §5.2, JWT-25 */
  | 'HTTP_AUTHORIZATION'
  /** More than one `Authorization` header: which one counts? → send one · JWT-SVID §5.2, JWT-25 */
  | 'HTTP_AUTHORIZATION_REPEATED'
  /** A trusted proxy sent no `x-forwarded-client-cert`: its client showed no certificate → have the proxy ask its clients for one */
  | 'XFCC_MISSING'
  /** More than one such header → have the proxy send one */
  | 'XFCC_REPEATED'
  /** Such a header of more than 64 KiB → have the proxy leave `Cert` and `Chain` out */
  | 'XFCC_TOO_LARGE'
  /** More elements than one where the proxy is to replace what it was sent, or more than 16 → Envoy's SANITIZE_SET, or `elements: 'last'` */
  | 'XFCC_ELEMENTS'
  /** Not pairs of key and value as Envoy writes them → see what writes it */
  | 'XFCC_SYNTAX'
  /** A key that Envoy does not write, twice, or out of order: a name has smuggled it in → see what writes it */
  | 'XFCC_KEY'
  /** No URI, or one that is no SPIFFE ID with a path → have the proxy hand on URIs, and its client show an X.509-SVID */
  | 'XFCC_URI'
  /** A hash that is no SHA-256 in hex → see what writes it */
  | 'XFCC_HASH'
  /** The proxy that wrote it is not the one that sent it: it was handed on → let each proxy replace it · X509-SVID §5.2 */
  | 'XFCC_BY';

/** How everything here refuses. `code` and `reason` are for programs, `message` is for people and may change; `cause` is what lies below, and goes to no peer. */
export class SpiffeError<C extends string = Code, R extends string = string> extends Error {
  override readonly name = 'SpiffeError';
  /** What kind of failure: see `Code`. */
  readonly code: C;
  /** Which rule was broken: see `Reason`. Undefined where the code says all. */
  readonly reason: R | undefined;

  /** @param message lower case, no period: the thing, what was wrong, what was seen, what to do. Goes on the wire; `cause` never does. */
  constructor(code: C, reason: R | undefined, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.reason = reason;
  }
}

/** Runs a reader; what it refuses is refused as `code`, with the same reason, its message led by `what`. */
export function under<T>(code: Code, what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof SpiffeError)) throw error;
    throw new SpiffeError(code, error.reason, `${what}: ${error.message}`, { cause: error });
  }
}
