"""A py-spiffe workload driven by JSON lines: one request a line on stdin, answers and events on stdout. See docs/interop.md."""

import base64
import json
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import JwtBundle, JwtSource, JwtSvid, SpiffeId, TrustDomain, WorkloadApiClient, X509Bundle, X509Source
from spiffe.workloadapi.workload_api_client import RetryPolicy
from spiffetls import ListenOptions, ServerTlsMode, dial, listen
from spiffetls.tlsconfig.authorize import authorize_any, authorize_id

SAYING = threading.Lock()
STOPS: dict[int, threading.Event] = {}


def say(line):
    with SAYING:
        print(json.dumps(line), flush=True)


def failure(error):
    words, code, at = [], "", error
    while at is not None:
        words.append(str(at))
        if not code and isinstance(at, grpc.Call):
            code = at.code().name
        at = at.__cause__
    return {"message": ": ".join(words), "code": code}


def der(certificate):
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def svid_of(svid):
    leaf = svid.leaf
    return {
        "id": str(svid.spiffe_id),
        "hint": "",  # py-spiffe does not hand it on
        "chain": [der(certificate) for certificate in svid.cert_chain],
        "notAfter": int(leaf.not_valid_after_utc.timestamp() * 1000),
    }


def x509_of(context):
    return {"svids": [svid_of(svid) for svid in context.x509_svids], "bundles": x509_bundles(context.x509_bundle_set)}


def x509_bundles(bundle_set):
    return {bundle.trust_domain.name: len(bundle.x509_authorities) for bundle in bundle_set.bundles}


def jwt_of(svid):
    return {
        "id": str(svid.spiffe_id),
        "hint": "",  # py-spiffe does not hand it on
        "audience": sorted(svid.audience),
        "expiry": int(svid.expiry * 1000),
        "token": svid.token,
    }


def watch(request, stop):
    number = request["id"]
    with WorkloadApiClient(request["addr"]) as client:
        # asks again at once but for a moment: a story must not measure py-spiffe's own back-off
        watching = client.stream_x509_contexts(
            lambda context: say({"id": number, "event": "update", "data": x509_of(context)}),
            lambda error: say({"id": number, "event": "error", "data": failure(error)}),
            retry_policy=RetryPolicy(base_backoff_in_seconds=0.05, backoff_factor=1, max_backoff=0.05),
        )
        stop.wait()
        watching.cancel()
    return {"ended": True}


def parse_bundle(request):
    """py-spiffe reads the two halves of a SPIFFE bundle by two classes, neither of which takes the other's keys."""
    domain = TrustDomain(request["trustDomain"])
    document = json.loads(request["document"])
    x509 = [key for key in document["keys"] if key.get("use") == "x509-svid"]
    jwt = [key for key in document["keys"] if key.get("use") == "jwt-svid"]
    pem = "".join(f"-----BEGIN CERTIFICATE-----\n{key['x5c'][0]}\n-----END CERTIFICATE-----\n" for key in x509)
    authorities = X509Bundle.parse(domain, pem.encode()).x509_authorities
    keys = JwtBundle.parse(domain, json.dumps({"keys": jwt}).encode()).jwt_authorities
    return {"x509": [der(authority) for authority in authorities], "jwt": list(keys), "sequence": document.get("spiffe_sequence", 0)}


def load(request):
    """Opens all clients first and holds them, then spreads the calls over them."""
    clients = [WorkloadApiClient(request["addr"]) for _ in range(request["connections"])]
    failures = []

    def call(number):
        client = clients[number % len(clients)]
        try:
            if request.get("kind") == "jwt":
                client.fetch_jwt_svid(audience=set(request["audience"]))
            else:
                client.fetch_x509_svid()
            return 1
        except Exception as error:  # noqa: BLE001: every way to fail is counted
            failures.append(failure(error))
            return 0

    started = time.monotonic()
    try:
        with ThreadPoolExecutor(max_workers=100) as pool:
            good = sum(pool.map(call, range(request["calls"])))
    finally:
        for client in clients:
            client.close()
    return {"good": good, "failures": failures[:20], "elapsedMs": int((time.monotonic() - started) * 1000)}


class Identity:
    """What spiffe-tls takes for an X509Source: the SVID of one Workload API, and the bundles of another when there is a right to neither."""

    def __init__(self, request):
        self.shown = X509Source(socket_path=request["addr"], timeout_in_seconds=20)
        self.trusted = X509Source(socket_path=request.get("bundles") or request["addr"], timeout_in_seconds=20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shown.close()
        self.trusted.close()

    @property
    def svid(self):
        return self.shown.svid

    @property
    def bundles(self):
        return self.trusted.bundles

    def subscribe_for_updates(self, callback):
        self.shown.subscribe_for_updates(callback)


def authorizer(peer):
    return authorize_id(SpiffeId(peer)) if peer else authorize_any()


def who_is(connection):
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return "nobody"
    names = certificate.to_cryptography().extensions.get_extension_for_class(SubjectAlternativeName).value
    return names.get_values_for_type(UniformResourceIdentifier)[0]


def read_line(connection):
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(4096)
    return line.decode().strip()


def answer_line(number, connection):
    try:
        connection.do_handshake()
        read_line(connection)
        who = who_is(connection)
        say({"id": number, "event": "served", "data": {"peer": who, "protocol": "tls"}})
        connection.sendall(f"you are {who}\n".encode())
    except Exception as error:  # noqa: BLE001: whoever asked counts them
        say({"id": number, "event": "refused", "data": failure(error)})
    finally:
        connection.close()


def listen_tls(request, stop):
    """By spiffe-tls, mtls or tls: each connection asks one line, and is told who it is."""
    number, mode = request["id"], {"mtls": ServerTlsMode.MTLS, "tls": ServerTlsMode.TLS}[request["mode"]]
    with Identity(request) as identity:
        listener = listen("127.0.0.1:0", identity, ListenOptions(tls_mode=mode, authorize_fn=authorizer(request["peer"])))
        say({"id": number, "event": "listening", "data": {"port": listener.getsockname()[1]}})
        # wakes the one who accepts
        threading.Thread(target=lambda: (stop.wait(), listener.sock_shutdown(socket.SHUT_RDWR)), daemon=True).start()
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                break
            threading.Thread(target=answer_line, args=(number, connection), daemon=True).start()
        listener.close()
    return {"ended": True}


def ask_tls(request):
    """By spiffe-tls, which shows our SVID to any server that wants to see one."""
    with Identity(request) as identity:
        connection = dial(request["to"], identity, authorize_fn=authorizer(request["peer"]))
        try:
            connection.sendall(b"0\n")
            return {"reply": read_line(connection), "peer": who_is(connection), "protocol": "tls"}
        finally:
            connection.close()


def serve(request, stop):
    op, addr, audience = request["op"], request.get("addr"), set(request.get("audience", []))
    if op == "hello":
        return {"client": "py-spiffe", "pid": os.getpid()}
    if op == "x509.watch":
        return watch(request, stop)
    if op == "bundle.parse":
        return parse_bundle(request)
    if op == "load":
        return load(request)
    if op == "wrapper.listen":
        return listen_tls(request, stop)
    if op == "wrapper.ask":
        return ask_tls(request)
    if op == "x509.source":
        with X509Source(socket_path=addr, timeout_in_seconds=20) as source:
            svid = source.svid
            if source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain) is None:
                raise LookupError("the source has no bundle of its own trust domain")
            return {"svids": [svid_of(svid)]}
    if op == "jwt.source":
        with JwtSource(socket_path=addr, timeout_in_seconds=20) as source:
            if not request.get("token"):
                return jwt_of(source.fetch_svid(audience=audience))
            domain = JwtSvid.parse_insecure(request["token"], audience).spiffe_id.trust_domain
            return jwt_of(JwtSvid.parse_and_validate(request["token"], source.get_bundle_for_trust_domain(domain), audience))
    with WorkloadApiClient(addr, default_timeout=20) as client:
        if op == "x509.fetch":
            return x509_of(client.fetch_x509_context())
        if op == "x509.bundles":
            return {"bundles": x509_bundles(client.fetch_x509_bundles())}
        if op == "jwt.fetch":
            subject = SpiffeId(request["subject"]) if request.get("subject") else None
            return {"svids": [jwt_of(svid) for svid in client.fetch_jwt_svids(audience=audience, subject=subject)]}
        if op == "jwt.validate":
            return jwt_of(client.validate_jwt_svid(request["token"], next(iter(audience))))
        if op == "jwt.bundles":
            return {"bundles": {bundle.trust_domain.name: list(bundle.jwt_authorities) for bundle in client.fetch_jwt_bundles().bundles}}
    raise ValueError(f"op {op} is not known")


def answer(request, stop):
    try:
        say({"id": request["id"], "result": serve(request, stop)})
    except Exception as error:  # noqa: BLE001: the one who asked decides what it means
        say({"id": request["id"], "error": failure(error)})
    finally:
        STOPS.pop(request["id"], None)


def main():
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "stop":
            stop = STOPS.get(request["target"])
            if stop:
                stop.set()
            say({"id": request["id"], "result": {"stopped": stop is not None}})
            continue
        stop = STOPS[request["id"]] = threading.Event()
        threading.Thread(target=answer, args=(request, stop), daemon=True).start()
    os._exit(0)  # whoever drove us is gone


main()
