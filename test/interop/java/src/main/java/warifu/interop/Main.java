package warifu.interop;

import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.util.JSONObjectUtils;
import io.grpc.Status;
import io.spiffe.bundle.jwtbundle.JwtBundle;
import io.spiffe.bundle.jwtbundle.JwtBundleSet;
import io.spiffe.bundle.x509bundle.X509Bundle;
import io.spiffe.bundle.x509bundle.X509BundleSet;
import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.spiffeid.TrustDomain;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultWorkloadApiClient.ClientOptions;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSourceOptions;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import io.spiffe.workloadapi.retry.ExponentialBackoffPolicy;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLPeerUnverifiedException;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** A java-spiffe workload driven by JSON lines: one request a line on stdin, answers and events on stdout. See docs/interop.md. */
public final class Main {
  private static final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
  private static final Map<Integer, CountDownLatch> stops = new ConcurrentHashMap<>();

  private Main() {}

  public static void main(String[] args) throws IOException {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    ExecutorService pool = Executors.newCachedThreadPool();
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      Request request;
      try {
        request = new Request(JSONObjectUtils.parse(line));
      } catch (Exception fault) {
        say(0, "error", failure(fault));
        continue;
      }
      if (request.op().equals("stop")) {
        CountDownLatch stop = stops.get(request.number("target"));
        if (stop != null) stop.countDown();
        say(request.id(), "result", Map.of("stopped", stop != null));
        continue;
      }
      stops.put(request.id(), new CountDownLatch(1));
      pool.execute(() -> {
        try {
          say(request.id(), "result", serve(request));
        } catch (Throwable fault) {
          say(request.id(), "error", failure(fault));
        } finally {
          stops.remove(request.id());
        }
      });
    }
    System.exit(0); // whoever drove us is gone
  }

  private record Request(Map<String, Object> fields) {
    int id() {
      return number("id");
    }

    String op() {
      return text("op");
    }

    int number(String name) {
      return fields.get(name) instanceof Number number ? number.intValue() : 0;
    }

    String text(String name) {
      return fields.get(name) instanceof String text ? text : "";
    }

    List<String> audience() {
      return ((List<?>) fields.get("audience")).stream().map(String::valueOf).toList();
    }

    String firstAudience() {
      return audience().get(0);
    }

    String[] moreAudiences() {
      return audience().stream().skip(1).toArray(String[]::new);
    }

    void untilStopped() throws InterruptedException {
      stops.get(id()).await();
    }
  }

  private static void say(int id, String what, Object data) {
    synchronized (out) {
      out.println(JSONObjectUtils.toJSONString(Map.of("id", id, what, data)));
    }
  }

  private static void event(int id, String name, Object data) {
    synchronized (out) {
      out.println(JSONObjectUtils.toJSONString(Map.of("id", id, "event", name, "data", data)));
    }
  }

  private static Map<String, Object> failure(Throwable fault) {
    StringBuilder words = new StringBuilder();
    String code = "";
    for (Throwable at = fault; at != null; at = at.getCause()) {
      if (!words.isEmpty()) words.append(": ");
      words.append(at.getMessage() == null ? at.getClass().getSimpleName() : at.getMessage());
      if (code.isEmpty() && Status.fromThrowable(at).getCode() != Status.Code.UNKNOWN) code = Status.fromThrowable(at).getCode().name();
    }
    return Map.of("message", words.toString(), "code", code);
  }

  /** Asks again at once but for a moment, so that a story does not measure java-spiffe's own back-off. */
  private static WorkloadApiClient client(Request request) throws Exception {
    return DefaultWorkloadApiClient.newClient(
        ClientOptions.builder()
            .spiffeSocketPath(request.text("addr"))
            .exponentialBackoffPolicy(
                ExponentialBackoffPolicy.builder()
                    .initialDelay(Duration.ofMillis(50))
                    .maxDelay(Duration.ofMillis(50))
                    .maxRetries(ExponentialBackoffPolicy.UNLIMITED_RETRIES)
                    .backoffMultiplier(1)
                    .build())
            .build());
  }

  private static Object serve(Request request) throws Exception {
    switch (request.op()) {
      case "hello":
        return Map.of("client", "java-spiffe", "pid", ProcessHandle.current().pid());
      case "x509.fetch":
        try (WorkloadApiClient client = client(request)) {
          return x509Of(client.fetchX509Context());
        }
      case "x509.source":
        try (DefaultX509Source source = source(request)) {
          X509Svid svid = source.getX509Svid();
          source.getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain());
          return Map.of("svids", List.of(svidOf(svid)));
        }
      case "x509.watch":
        try (WorkloadApiClient client = client(request)) {
          client.watchX509Context(
              new Watcher<>() {
                @Override
                public void onUpdate(X509Context update) {
                  try {
                    event(request.id(), "update", x509Of(update));
                  } catch (Exception fault) {
                    event(request.id(), "error", failure(fault));
                  }
                }

                @Override
                public void onError(Throwable fault) {
                  event(request.id(), "error", failure(fault));
                }
              });
          request.untilStopped();
          return Map.of("ended", true);
        }
      case "x509.bundles":
        try (WorkloadApiClient client = client(request)) {
          return Map.of("bundles", x509Bundles(client.fetchX509Bundles()));
        }
      case "jwt.fetch":
        try (WorkloadApiClient client = client(request)) {
          String subject = request.text("subject");
          List<JwtSvid> svids =
              subject.isEmpty()
                  ? client.fetchJwtSvids(request.firstAudience(), request.moreAudiences())
                  : client.fetchJwtSvids(SpiffeId.parse(subject), request.firstAudience(), request.moreAudiences());
          return Map.of("svids", svids.stream().map(Main::jwtOf).toList());
        }
      case "jwt.validate":
        try (WorkloadApiClient client = client(request)) {
          return jwtOf(client.validateJwtSvid(request.text("token"), request.firstAudience()));
        }
      case "jwt.source":
        try (WorkloadApiClient client = client(request);
            var source = DefaultJwtSource.newSource(JwtSourceOptions.builder().workloadApiClient(client).initTimeout(Duration.ofSeconds(20)).build())) {
          if (request.text("token").isEmpty()) return jwtOf(source.fetchJwtSvid(request.firstAudience(), request.moreAudiences()));
          return jwtOf(JwtSvid.parseAndValidate(request.text("token"), source, Set.copyOf(request.audience())));
        }
      case "jwt.bundles":
        try (WorkloadApiClient client = client(request)) {
          return Map.of("bundles", jwtBundles(client.fetchJwtBundles()));
        }
      case "bundle.parse":
        return bundle(request);
      case "mtls.listen":
        return listen(request);
      case "mtls.dial":
        return dial(request);
      case "load":
        return load(request);
      default:
        throw new IllegalArgumentException("op " + request.op() + " is not known");
    }
  }

  private static DefaultX509Source source(Request request) throws Exception {
    return DefaultX509Source.newSource(
        DefaultX509Source.X509SourceOptions.builder().workloadApiClient(client(request)).initTimeout(Duration.ofSeconds(20)).build());
  }

  private static String base64(X509Certificate certificate) throws Exception {
    return Base64.getEncoder().encodeToString(certificate.getEncoded());
  }

  private static Map<String, Object> svidOf(X509Svid svid) throws Exception {
    List<String> chain = new ArrayList<>();
    for (X509Certificate certificate : svid.getChain()) chain.add(base64(certificate));
    return Map.of("id", svid.getSpiffeId().toString(), "hint", svid.getHint() == null ? "" : svid.getHint(), "chain", chain, "notAfter", svid.getLeaf().getNotAfter().getTime());
  }

  /** What the Workload API answered, with each chain verified by java-spiffe against the bundles of the same answer. */
  private static Map<String, Object> x509Of(X509Context update) throws Exception {
    List<Object> svids = new ArrayList<>();
    for (X509Svid svid : update.getX509Svids()) {
      X509SvidValidator.verifyChain(svid.getChain(), update.getX509BundleSet());
      svids.add(svidOf(svid));
    }
    return Map.of("svids", svids, "bundles", x509Bundles(update.getX509BundleSet()));
  }

  private static Map<String, Object> x509Bundles(X509BundleSet set) {
    Map<String, Object> counts = new TreeMap<>();
    set.getBundles().forEach((domain, bundle) -> counts.put(domain.getName(), bundle.getX509Authorities().size()));
    return counts;
  }

  private static Map<String, Object> jwtBundles(JwtBundleSet set) {
    Map<String, Object> keys = new TreeMap<>();
    set.getBundles().forEach((domain, bundle) -> keys.put(domain.getName(), List.copyOf(bundle.getJwtAuthorities().keySet())));
    return keys;
  }

  private static Map<String, Object> jwtOf(JwtSvid svid) {
    return Map.of("id", svid.getSpiffeId().toString(), "hint", svid.getHint() == null ? "" : svid.getHint(), "audience", List.copyOf(svid.getAudience()), "expiry", svid.getExpiry().getTime(), "token", svid.getToken());
  }

  /** java-spiffe reads the two halves of a SPIFFE bundle by two classes, neither of which takes the other's keys. */
  private static Map<String, Object> bundle(Request request) throws Exception {
    TrustDomain domain = TrustDomain.parse(request.text("trustDomain"));
    Map<String, Object> document = JSONObjectUtils.parse(request.text("document"));
    List<JWK> jwt = new ArrayList<>();
    ByteArrayOutputStream x509 = new ByteArrayOutputStream();
    for (JWK key : JWKSet.parse(document).getKeys()) {
      switch (key.getKeyUse() == null ? "" : key.getKeyUse().identifier()) {
        case "x509-svid" -> x509.write(pem(key.getX509CertChain().get(0).decode()));
        case "jwt-svid" -> jwt.add(key);
        default -> {}
      }
    }
    JwtBundle jwtBundle = JwtBundle.parse(domain, new JWKSet(jwt).toString().getBytes(StandardCharsets.UTF_8));
    X509Bundle x509Bundle = X509Bundle.parse(domain, x509.toByteArray());
    List<String> authorities = new ArrayList<>();
    for (X509Certificate authority : x509Bundle.getX509Authorities()) authorities.add(base64(authority));
    return Map.of("x509", authorities, "jwt", List.copyOf(jwtBundle.getJwtAuthorities().keySet()), "sequence", document.getOrDefault("spiffe_sequence", 0));
  }

  private static byte[] pem(byte[] der) {
    String body = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(der);
    return ("-----BEGIN CERTIFICATE-----\n" + body + "\n-----END CERTIFICATE-----\n").getBytes(StandardCharsets.US_ASCII);
  }

  private static SSLContext tls(Request request, DefaultX509Source source) throws Exception {
    String peer = request.text("peer");
    // java-spiffe's own default is TLS 1.2
    var options = SslContextOptions.builder().x509Source(source).sslProtocol("TLSv1.3");
    return SpiffeSslContextFactory.getSslContext(
        (peer.isEmpty() ? options.acceptAnySpiffeId() : options.acceptedSpiffeIdsSupplier(() -> Set.of(SpiffeId.parse(peer)))).build());
  }

  private static String peerOf(SSLSocket socket) throws Exception {
    X509Certificate leaf = (X509Certificate) socket.getSession().getPeerCertificates()[0];
    for (List<?> name : leaf.getSubjectAlternativeNames()) {
      if (name.get(0).equals(6)) return (String) name.get(1);
    }
    throw new SSLPeerUnverifiedException("the peer's certificate has no URI");
  }

  /** Serves until stopped: each connection sends one line and gets it back with the SPIFFE ID that we saw. */
  private static Object listen(Request request) throws Exception {
    try (DefaultX509Source source = source(request);
        SSLServerSocket listener =
            (SSLServerSocket) tls(request, source).getServerSocketFactory().createServerSocket(0, 50, InetAddress.getByName("127.0.0.1"))) {
      listener.setNeedClientAuth(true);
      event(request.id(), "listening", Map.of("port", listener.getLocalPort()));
      Thread accepting = new Thread(() -> accept(request, listener));
      accepting.start();
      request.untilStopped();
      return Map.of("ended", true);
    }
  }

  private static void accept(Request request, SSLServerSocket listener) {
    while (true) {
      SSLSocket socket;
      try {
        socket = (SSLSocket) listener.accept();
      } catch (IOException closed) {
        return;
      }
      new Thread(() -> {
        try (socket) {
          String line = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8)).readLine();
          String peer = peerOf(socket);
          event(request.id(), "served", Map.of("peer", peer));
          socket.getOutputStream().write((peer + " " + line + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (Exception fault) {
          event(request.id(), "refused", failure(fault));
        }
      }).start();
    }
  }

  private static Object dial(Request request) throws Exception {
    String to = request.text("to");
    int colon = to.lastIndexOf(':');
    try (DefaultX509Source source = source(request);
        SSLSocket socket = (SSLSocket) tls(request, source).getSocketFactory().createSocket(to.substring(0, colon), Integer.parseInt(to.substring(colon + 1)))) {
      socket.getOutputStream().write((request.text("message") + "\n").getBytes(StandardCharsets.UTF_8));
      String reply = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8)).readLine();
      if (reply == null) throw new IOException("the peer closed without an answer");
      return Map.of("reply", reply, "peer", peerOf(socket));
    }
  }

  /** Opens all clients first and holds them, then spreads the calls over them, all at once. */
  private static Object load(Request request) throws Exception {
    List<WorkloadApiClient> clients = new ArrayList<>();
    List<Object> failures = new ArrayList<>();
    int[] good = {0};
    int calls = request.number("calls");
    ExecutorService pool = Executors.newFixedThreadPool(calls);
    CountDownLatch together = new CountDownLatch(1);
    CountDownLatch left = new CountDownLatch(calls);
    try {
      for (int i = 0; i < request.number("connections"); i++) clients.add(client(request));
      for (int i = 0; i < calls; i++) {
        WorkloadApiClient client = clients.get(i % clients.size());
        pool.execute(() -> {
          try {
            together.await();
            switch (request.text("kind")) {
              case "jwt" -> client.fetchJwtSvid(request.firstAudience());
              case "x509bundles" -> client.fetchX509Bundles();
              default -> client.fetchX509Context();
            }
            synchronized (good) {
              good[0]++;
            }
          } catch (Throwable fault) {
            synchronized (failures) {
              if (failures.size() < 20) failures.add(failure(fault));
            }
          } finally {
            left.countDown();
          }
        });
      }
      long started = System.nanoTime();
      together.countDown();
      left.await();
      return Map.of("good", good[0], "failures", failures, "elapsedMs", (System.nanoTime() - started) / 1_000_000);
    } finally {
      pool.shutdownNow();
      for (WorkloadApiClient client : clients) client.close();
    }
  }
}
