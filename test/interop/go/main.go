// A go-spiffe workload driven by JSON lines: one request a line on stdin, answers and events on stdout. See docs/interop.md.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
	"slices"
	"sync/atomic"
)

type request struct {
	ID          int       `json:"id"`
	Op          string    `json:"op"`
	Target      int       `json:"target"`
	Addr        string    `json:"addr"`
	Audience    []string  `json:"audience"`
	Subject     string    `json:"subject"`
	Token       string    `json:"token"`
	TrustDomain string    `json:"trustDomain"`
	Document    string    `json:"document"`
	To          string    `json:"to"`
	Peer        string    `json:"peer"`
	Message     string    `json:"message"`
	Kind        string    `json:"kind"`
	Calls       int       `json:"calls"`
	Connections int       `json:"connections"`
	TimeoutMs   int       `json:"timeoutMs"`
	Width       int       `json:"width"`
	DurationMs  int       `json:"durationMs"`
	Exhibits    []exhibit `json:"exhibits"`
	wrapperRequest
}

type object = map[string]any

var (
	outMu   sync.Mutex
	out     = json.NewEncoder(os.Stdout)
	stopsMu sync.Mutex
	stops   = map[int]context.CancelFunc{}
)

func say(line object) {
	outMu.Lock()
	defer outMu.Unlock()
	if err := out.Encode(line); err != nil {
		os.Exit(1) // nobody reads us any more
	}
}

func failure(err error) object {
	code := ""
	// the status may stand below go-spiffe's own words
	var withStatus interface{ GRPCStatus() *status.Status }
	if errors.As(err, &withStatus) {
		code = withStatus.GRPCStatus().Code().String()
	}
	return object{"message": err.Error(), "code": code}
}

func event(id int, name string, data object) {
	say(object{"id": id, "event": name, "data": data})
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var req request
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			say(object{"id": 0, "error": failure(err)})
			continue
		}
		if req.Op == "stop" {
			stopsMu.Lock()
			cancel, ok := stops[req.Target]
			stopsMu.Unlock()
			if ok {
				cancel()
			}
			say(object{"id": req.ID, "result": object{"stopped": ok}})
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		if req.TimeoutMs > 0 {
			ctx, cancel = context.WithTimeout(context.Background(), time.Duration(req.TimeoutMs)*time.Millisecond)
		}
		stopsMu.Lock()
		stops[req.ID] = cancel
		stopsMu.Unlock()
		go func() {
			result, err := serve(ctx, req)
			cancel()
			stopsMu.Lock()
			delete(stops, req.ID)
			stopsMu.Unlock()
			if err != nil {
				say(object{"id": req.ID, "error": failure(err)})
			} else {
				say(object{"id": req.ID, "result": result})
			}
		}()
	}
}

func serve(ctx context.Context, req request) (object, error) {
	switch req.Op {
	case "hello":
		return object{"client": "go-spiffe", "pid": os.Getpid()}, nil
	case "x509.fetch":
		update, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(req.Addr))
		if err != nil {
			return nil, err
		}
		return x509Of(update)
	case "x509.source":
		source, err := workloadapi.NewX509Source(ctx, options(req))
		if err != nil {
			return nil, err
		}
		defer source.Close()
		svid, err := source.GetX509SVID()
		if err != nil {
			return nil, err
		}
		if _, err := source.GetX509BundleForTrustDomain(svid.ID.TrustDomain()); err != nil {
			return nil, err
		}
		return object{"svids": []object{svidOf(svid)}}, nil
	case "x509.watch":
		return watch(ctx, func(client *workloadapi.Client) error { return client.WatchX509Context(ctx, watcher(req.ID)) }, req)
	case "x509.bundles":
		set, err := workloadapi.FetchX509Bundles(ctx, workloadapi.WithAddr(req.Addr))
		if err != nil {
			return nil, err
		}
		return object{"bundles": x509Bundles(set)}, nil
	case "jwt.fetch":
		params := jwtsvid.Params{Audience: req.Audience[0], ExtraAudiences: req.Audience[1:]}
		if req.Subject != "" {
			subject, err := spiffeid.FromString(req.Subject)
			if err != nil {
				return nil, err
			}
			params.Subject = subject
		}
		svids, err := workloadapi.FetchJWTSVIDs(ctx, params, workloadapi.WithAddr(req.Addr))
		if err != nil {
			return nil, err
		}
		list := []object{}
		for _, svid := range svids {
			list = append(list, jwtOf(svid))
		}
		return object{"svids": list}, nil
	case "jwt.validate":
		svid, err := workloadapi.ValidateJWTSVID(ctx, req.Token, req.Audience[0], workloadapi.WithAddr(req.Addr))
		if err != nil {
			return nil, err
		}
		return jwtOf(svid), nil
	case "jwt.source":
		source, err := workloadapi.NewJWTSource(ctx, options(req))
		if err != nil {
			return nil, err
		}
		defer source.Close()
		if req.Token == "" {
			svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: req.Audience[0], ExtraAudiences: req.Audience[1:]})
			if err != nil {
				return nil, err
			}
			return jwtOf(svid), nil
		}
		svid, err := jwtsvid.ParseAndValidate(req.Token, source, req.Audience)
		if err != nil {
			return nil, err
		}
		return jwtOf(svid), nil
	case "jwt.bundles":
		set, err := workloadapi.FetchJWTBundles(ctx, workloadapi.WithAddr(req.Addr))
		if err != nil {
			return nil, err
		}
		return object{"bundles": jwtBundles(set)}, nil
	case "bundle.parse":
		domain, err := spiffeid.TrustDomainFromString(req.TrustDomain)
		if err != nil {
			return nil, err
		}
		bundle, err := spiffebundle.Parse(domain, []byte(req.Document))
		if err != nil {
			return nil, err
		}
		ids := []string{}
		for id := range bundle.JWTAuthorities() {
			ids = append(ids, id)
		}
		x509 := []string{}
		for _, authority := range bundle.X509Authorities() {
			x509 = append(x509, base64.StdEncoding.EncodeToString(authority.Raw))
		}
		sequence, _ := bundle.SequenceNumber()
		return object{"x509": x509, "jwt": ids, "sequence": sequence}, nil
	case "judge":
		return judge(req.Exhibits), nil
	case "mtls.listen":
		return listen(ctx, req)
	case "mtls.dial":
		return dial(ctx, req)
	case "wrapper.listen":
		return wrapperListen(ctx, req)
	case "wrapper.ask":
		return wrapperAsk(ctx, req)
	case "wrapper.steady":
		return wrapperSteady(ctx, req)
	case "load":
		return load(ctx, req)
	case "rate":
		return rate(ctx, req)
	}
	return nil, fmt.Errorf("op %q is not known", req.Op)
}

// A watch asks again at once but for a moment, so that a story does not measure go-spiffe's own back-off of 1 to 30 s.
type quick struct{}

func (quick) NewBackoff() workloadapi.Backoff { return quick{} }
func (quick) Next() time.Duration             { return 50 * time.Millisecond }
func (quick) Reset()                          {}

func options(req request) workloadapi.SourceOption {
	return workloadapi.WithClientOptions(workloadapi.WithAddr(req.Addr), workloadapi.WithBackoffStrategy(quick{}))
}

type watcher int

func (id watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	data, err := x509Of(update)
	if err != nil {
		event(int(id), "error", failure(err))
		return
	}
	event(int(id), "update", data)
}

func (id watcher) OnX509ContextWatchError(err error) { event(int(id), "error", failure(err)) }

func watch(ctx context.Context, run func(*workloadapi.Client) error, req request) (object, error) {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(req.Addr), workloadapi.WithBackoffStrategy(quick{}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := run(client); err != nil && ctx.Err() == nil {
		return nil, err
	}
	return object{"ended": true}, nil
}

func svidOf(svid *x509svid.SVID) object {
	chain := []string{}
	for _, certificate := range svid.Certificates {
		chain = append(chain, base64.StdEncoding.EncodeToString(certificate.Raw))
	}
	return object{"id": svid.ID.String(), "hint": svid.Hint, "chain": chain, "notAfter": svid.Certificates[0].NotAfter.UnixMilli()}
}

// What the Workload API answered, with each chain verified by go-spiffe against the bundles of the same answer.
func x509Of(update *workloadapi.X509Context) (object, error) {
	svids := []object{}
	for _, svid := range update.SVIDs {
		if _, _, err := x509svid.Verify(svid.Certificates, update.Bundles); err != nil {
			return nil, err
		}
		svids = append(svids, svidOf(svid))
	}
	return object{"svids": svids, "bundles": x509Bundles(update.Bundles)}, nil
}

func x509Bundles(set *x509bundle.Set) object {
	counts := object{}
	for _, bundle := range set.Bundles() {
		counts[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	return counts
}

func jwtBundles(set *jwtbundle.Set) object {
	keys := object{}
	for _, bundle := range set.Bundles() {
		ids := []string{}
		for id := range bundle.JWTAuthorities() {
			ids = append(ids, id)
		}
		keys[bundle.TrustDomain().Name()] = ids
	}
	return keys
}

func jwtOf(svid *jwtsvid.SVID) object {
	return object{"id": svid.ID.String(), "hint": svid.Hint, "audience": svid.Audience, "expiry": svid.Expiry.UnixMilli(), "token": svid.Marshal()}
}

func authorizer(peer string) (tlsconfig.Authorizer, error) {
	if peer == "" {
		return tlsconfig.AuthorizeAny(), nil
	}
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return nil, err
	}
	return tlsconfig.AuthorizeID(id), nil
}

// Serves until stopped: each connection sends one line and gets it back with the SPIFFE ID that we saw.
func listen(ctx context.Context, req request) (object, error) {
	authorize, err := authorizer(req.Peer)
	if err != nil {
		return nil, err
	}
	listener, err := spiffetls.ListenWithMode(ctx, "tcp", "127.0.0.1:0", spiffetls.MTLSServerWithSourceOptions(authorize, options(req)))
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	go func() {
		<-ctx.Done()
		listener.Close()
	}()
	event(req.ID, "listening", object{"port": listener.Addr().(*net.TCPAddr).Port})
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return object{"ended": true}, nil
			}
			return nil, err
		}
		go func() {
			defer conn.Close()
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				event(req.ID, "refused", failure(err))
				return
			}
			peer, err := spiffetls.PeerIDFromConn(conn)
			if err != nil {
				event(req.ID, "refused", failure(err))
				return
			}
			event(req.ID, "served", object{"peer": peer.String()})
			fmt.Fprintf(conn, "%s %s\n", peer, line[:len(line)-1])
		}()
	}
}

func dial(ctx context.Context, req request) (object, error) {
	authorize, err := authorizer(req.Peer)
	if err != nil {
		return nil, err
	}
	conn, err := spiffetls.DialWithMode(ctx, "tcp", req.To, spiffetls.MTLSClientWithSourceOptions(authorize, options(req)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\n", req.Message); err != nil {
		return nil, err
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return nil, err
	}
	peer, err := spiffetls.PeerIDFromConn(conn)
	if err != nil {
		return nil, err
	}
	return object{"reply": reply[:len(reply)-1], "peer": peer.String()}, nil
}

// Opens all connections first and holds them, then spreads the calls over them, all at once.
func load(ctx context.Context, req request) (object, error) {
	clients := make([]*workloadapi.Client, req.Connections)
	for i := range clients {
		client, err := workloadapi.New(ctx, workloadapi.WithAddr(req.Addr))
		if err != nil {
			return nil, err
		}
		defer client.Close()
		clients[i] = client
	}
	var (
		wait   sync.WaitGroup
		mu     sync.Mutex
		failed = []object{}
		good   int
	)
	call := func(client *workloadapi.Client) error {
		switch req.Kind {
		case "jwt":
			_, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: req.Audience[0]})
			return err
		case "x509bundles":
			_, err := client.FetchX509Bundles(ctx)
			return err
		default:
			_, err := client.FetchX509SVID(ctx)
			return err
		}
	}
	started := time.Now()
	for i := range req.Calls {
		wait.Add(1)
		go func() {
			defer wait.Done()
			err := call(clients[i%len(clients)])
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				good++
			} else if len(failed) < 20 {
				failed = append(failed, failure(err))
			}
		}()
	}
	wait.Wait()
	return object{"good": good, "failures": failed, "elapsedMs": time.Since(started).Milliseconds()}, nil
}

// As many calls as can be made in a time, so many side by side: over one connection, or ("x509.new") each over its own.
func rate(ctx context.Context, req request) (object, error) {
	shared, err := workloadapi.New(ctx, workloadapi.WithAddr(req.Addr))
	if err != nil {
		return nil, err
	}
	defer shared.Close()
	var fresh atomic.Int64
	call := func() error {
		switch req.Kind {
		case "x509.new":
			client, err := workloadapi.New(ctx, workloadapi.WithAddr(req.Addr))
			if err != nil {
				return err
			}
			defer client.Close()
			_, err = client.FetchX509SVID(ctx)
			return err
		case "x509.warm":
			_, err := shared.FetchX509SVID(ctx)
			return err
		case "jwt.same":
			_, err := shared.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "same"})
			return err
		case "jwt.fresh":
			_, err := shared.FetchJWTSVID(ctx, jwtsvid.Params{Audience: fmt.Sprintf("fresh-%d-%d", os.Getpid(), fresh.Add(1))})
			return err
		default:
			return fmt.Errorf("no kind %s", req.Kind)
		}
	}
	if err := call(); err != nil {
		return nil, err
	}
	var (
		wait    sync.WaitGroup
		mu      sync.Mutex
		took    []float64
		failure error
	)
	started := time.Now()
	end := started.Add(time.Duration(req.DurationMs) * time.Millisecond)
	for range req.Width {
		wait.Add(1)
		go func() {
			defer wait.Done()
			var own []float64
			for time.Now().Before(end) {
				from := time.Now()
				if err := call(); err != nil {
					mu.Lock()
					failure = err
					mu.Unlock()
					return
				}
				own = append(own, float64(time.Since(from).Microseconds())/1000)
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		}()
	}
	wait.Wait()
	if failure != nil {
		return nil, failure
	}
	slices.Sort(took)
	return object{
		"calls":     len(took),
		"elapsedMs": time.Since(started).Milliseconds(),
		"medianMs":  took[len(took)/2],
		"p99Ms":     took[len(took)*99/100],
	}, nil
}
