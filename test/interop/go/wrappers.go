// Every way in which go-spiffe does TLS (sockets, net/http over HTTP/1.1 and HTTP/2, gRPC), as server and as client, in its three modes.
// What is said over each is what test/spiffe/tls/wrappers.ts says.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// What a question takes beside the request's own fields.
type wrapperRequest struct {
	// mtls, tls or mtls-web
	Mode string `json:"mode"`
	// The Workload API whose bundles the other end is judged by; default: the one of our SVID. Another is how one comes who has no right to the SVID that it shows
	Bundles string `json:"bundles"`
	// PEM: what a server of mtls-web shows, and what its client trusts
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	Roots       string `json:"roots"`
	// Speaks no TLS after 1.2
	OldTLS    bool `json:"oldTls"`
	PerSecond int  `json:"perSecond"`
	// Tells of nobody who was served: under load that would be the load
	Quiet bool `json:"quiet"`
}

// What we show, and what we judge by.
type identity struct {
	svid    *workloadapi.X509Source
	bundles *workloadapi.X509Source
}

func openIdentity(ctx context.Context, req request) (identity, error) {
	svid, err := workloadapi.NewX509Source(ctx, options(req))
	if err != nil || req.Bundles == "" {
		return identity{svid, svid}, err
	}
	req.Addr = req.Bundles
	bundles, err := workloadapi.NewX509Source(ctx, options(req))
	if err != nil {
		svid.Close()
	}
	return identity{svid, bundles}, err
}

func (own identity) Close() {
	own.svid.Close()
	if own.bundles != own.svid {
		own.bundles.Close()
	}
}

func (req request) base() *tls.Config {
	if req.OldTLS {
		return &tls.Config{MaxVersion: tls.VersionTLS12}
	}
	return &tls.Config{}
}

func (req request) roots() (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(req.Roots)) {
		return nil, errors.New("no roots")
	}
	return roots, nil
}

// Whom a connection is with; nobody where no certificate was shown. What a web certificate says is no SPIFFE ID.
func whoIs(state tls.ConnectionState, mode string) (string, error) {
	if len(state.PeerCertificates) == 0 || mode == "mtls-web" {
		return "nobody", nil
	}
	id, err := spiffetls.PeerIDFromConnectionState(state)
	return id.String(), err
}

// A server of mtls-web shows a web certificate, and its clients have SPIFFE IDs.
func clientOf(state tls.ConnectionState) (string, error) { return whoIs(state, "") }

func serverConfig(req request, own identity) (*tls.Config, spiffetls.ListenMode, credentials.TransportCredentials, error) {
	authorize, err := authorizer(req.Peer)
	if err != nil {
		return nil, nil, nil, err
	}
	config := req.base()
	switch req.Mode {
	case "mtls":
		tlsconfig.HookMTLSServerConfig(config, own.svid, own.bundles, authorize)
		return config, spiffetls.MTLSServerWithRawConfig(authorize, own.svid, own.bundles),
			grpccredentials.MTLSServerCredentials(own.svid, own.bundles, authorize), nil
	case "tls":
		tlsconfig.HookTLSServerConfig(config, own.svid)
		return config, spiffetls.TLSServerWithRawConfig(own.svid), grpccredentials.TLSServerCredentials(own.svid), nil
	case "mtls-web":
		certificate, err := tls.X509KeyPair([]byte(req.Certificate), []byte(req.Key))
		if err != nil {
			return nil, nil, nil, err
		}
		tlsconfig.HookMTLSWebServerConfig(config, &certificate, own.bundles, authorize)
		return config, spiffetls.MTLSWebServerWithRawConfig(authorize, &certificate, own.bundles),
			grpccredentials.MTLSWebServerCredentials(&certificate, own.bundles, authorize), nil
	}
	return nil, nil, nil, fmt.Errorf("no mode %q", req.Mode)
}

func clientConfig(req request, own identity) (*tls.Config, spiffetls.DialMode, credentials.TransportCredentials, error) {
	authorize, err := authorizer(req.Peer)
	if err != nil {
		return nil, nil, nil, err
	}
	config := req.base()
	switch req.Mode {
	case "mtls":
		tlsconfig.HookMTLSClientConfig(config, own.svid, own.bundles, authorize)
		return config, spiffetls.MTLSClientWithRawConfig(authorize, own.svid, own.bundles),
			grpccredentials.MTLSClientCredentials(own.svid, own.bundles, authorize), nil
	case "tls":
		tlsconfig.HookTLSClientConfig(config, own.bundles, authorize)
		return config, spiffetls.TLSClientWithRawConfig(authorize, own.bundles), grpccredentials.TLSClientCredentials(own.bundles, authorize), nil
	case "mtls-web":
		roots, err := req.roots()
		if err != nil {
			return nil, nil, nil, err
		}
		tlsconfig.HookMTLSWebClientConfig(config, own.svid, roots)
		return config, spiffetls.MTLSWebClientWithRawConfig(roots, own.svid), grpccredentials.MTLSWebClientCredentials(own.svid, roots), nil
	}
	return nil, nil, nil, fmt.Errorf("no mode %q", req.Mode)
}

// Tells of each handshake of gRPC that came to nothing: its server keeps that to itself.
type telling struct {
	credentials.TransportCredentials
	refusals
}

func (transport telling) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := transport.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		fmt.Fprint(transport.refusals, err)
	}
	return conn, info, err
}

// Serves until stopped: kind tls, http (whichever version the client speaks) or grpc.
func wrapperListen(ctx context.Context, req request) (object, error) {
	own, err := openIdentity(ctx, req)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	config, mode, transport, err := serverConfig(req, own)
	if err != nil {
		return nil, err
	}
	served := func(who string, protocol string) {
		if !req.Quiet {
			event(req.ID, "served", object{"peer": who, "protocol": protocol})
		}
	}
	listening := func(listener net.Listener) {
		event(req.ID, "listening", object{"port": listener.Addr().(*net.TCPAddr).Port})
	}

	switch req.Kind {
	case "tls":
		listener, err := spiffetls.ListenWithMode(ctx, "tcp", "127.0.0.1:0", mode, spiffetls.WithListenTLSConfigBase(req.base()))
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		context.AfterFunc(ctx, func() { listener.Close() })
		listening(listener)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return ended(ctx, err)
			}
			go func() {
				defer conn.Close()
				if err := answerLines(conn, req.Mode, served); err != nil && !req.Quiet {
					event(req.ID, "refused", failure(err))
				}
			}()
		}
	case "http":
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		server := &http.Server{
			TLSConfig: config,
			ErrorLog:  log.New(refusals(req), "", 0),
			Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
				who, err := clientOf(*request.TLS)
				if err != nil {
					http.Error(response, err.Error(), http.StatusForbidden)
					return
				}
				served(who, request.Proto)
				pause(request.Header.Get("x-wait"))
				fmt.Fprintf(response, "you are %s", who)
			}),
		}
		context.AfterFunc(ctx, func() { server.Close() })
		listening(listener)
		return ended(ctx, server.ServeTLS(listener, "", ""))
	case "grpc":
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		server := grpc.NewServer(grpc.Creds(telling{transport, refusals(req)}), grpc.ForceServerCodec(asIs{}))
		server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Test", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
			MethodName: "Who",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var wait []byte
				if err := decode(&wait); err != nil {
					return nil, err
				}
				who := "nobody"
				if id, ok := grpccredentials.PeerIDFromContext(ctx); ok {
					who = id.String()
				}
				served(who, "grpc")
				pause(string(wait))
				return []byte("you are " + who), nil
			},
		}}}, struct{}{})
		context.AfterFunc(ctx, server.Stop)
		listening(listener)
		return ended(ctx, server.Serve(listener))
	}
	return nil, fmt.Errorf("no kind %q", req.Kind)
}

func ended(ctx context.Context, err error) (object, error) {
	if ctx.Err() != nil {
		return object{"ended": true}, nil
	}
	return nil, err
}

// What net/http says of handshakes that came to nothing.
type refusals request

func (req refusals) Write(line []byte) (int, error) {
	if !req.Quiet {
		event(req.ID, "refused", object{"message": strings.TrimSpace(string(line)), "code": ""})
	}
	return len(line), nil
}

func pause(milliseconds string) {
	if wait, err := strconv.Atoi(milliseconds); err == nil {
		time.Sleep(time.Duration(wait) * time.Millisecond)
	}
}

func answerLines(conn net.Conn, mode string, served func(string, string)) error {
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		who := "nobody"
		if mode != "tls" {
			id, err := spiffetls.PeerIDFromConn(conn)
			if err != nil {
				return err
			}
			who = id.String()
		}
		served(who, "tls")
		pause(lines.Text())
		if _, err := fmt.Fprintf(conn, "you are %s\n", who); err != nil {
			return err
		}
	}
	return lines.Err()
}

// A gRPC message is its bytes.
type asIs struct{}

func (asIs) Name() string { return "proto" }
func (asIs) Marshal(message any) ([]byte, error) {
	switch bytes := message.(type) {
	case []byte:
		return bytes, nil
	case *[]byte:
		return *bytes, nil
	}
	return nil, fmt.Errorf("%T is no bytes", message)
}
func (asIs) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = slices.Clone(data)
	return nil
}

type reply struct {
	text string
	// the server's SPIFFE ID as go-spiffe tells it
	peer     string
	protocol string
}

// A client of kind tls (a connection for each question), https, http2 or grpc.
func newAsker(req request, own identity) (ask func(context.Context) (reply, error), done func(), err error) {
	config, mode, transport, err := clientConfig(req, own)
	if err != nil {
		return nil, nil, err
	}
	switch req.Kind {
	case "tls":
		return func(ctx context.Context) (reply, error) {
			conn, err := spiffetls.DialWithMode(ctx, "tcp", req.To, mode, spiffetls.WithDialTLSConfigBase(req.base()))
			if err != nil {
				return reply{}, err
			}
			defer conn.Close()
			if deadline, ok := ctx.Deadline(); ok {
				_ = conn.SetDeadline(deadline)
			}
			if _, err := fmt.Fprint(conn, "0\n"); err != nil {
				return reply{}, err
			}
			text, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				return reply{}, err
			}
			who := "nobody"
			if req.Mode != "mtls-web" {
				id, err := spiffetls.PeerIDFromConn(conn)
				if err != nil {
					return reply{}, err
				}
				who = id.String()
			}
			return reply{strings.TrimSpace(text), who, "tls"}, nil
		}, func() {}, nil
	case "https", "http2":
		http2 := req.Kind == "http2"
		round := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2, MaxIdleConnsPerHost: 100}
		client := &http.Client{Transport: round}
		return func(ctx context.Context) (reply, error) {
			question, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+req.To+"/", nil)
			if err != nil {
				return reply{}, err
			}
			response, err := client.Do(question)
			if err != nil {
				return reply{}, err
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil {
				return reply{}, err
			}
			if response.StatusCode != http.StatusOK {
				return reply{}, fmt.Errorf("status %d: %s", response.StatusCode, text)
			}
			who, err := whoIs(*response.TLS, req.Mode)
			return reply{string(text), who, response.Proto}, err
		}, round.CloseIdleConnections, nil
	case "grpc":
		channel, err := grpc.NewClient(req.To, grpc.WithTransportCredentials(transport), grpc.WithDefaultCallOptions(grpc.ForceCodec(asIs{})))
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context) (reply, error) {
			var text []byte
			var from peer.Peer
			if err := channel.Invoke(ctx, "/test.Test/Who", []byte("0"), &text, grpc.Peer(&from)); err != nil {
				return reply{}, err
			}
			who := "nobody"
			if id, ok := grpccredentials.PeerIDFromPeer(&from); ok {
				who = id.String()
			}
			return reply{string(text), who, "grpc"}, nil
		}, func() { channel.Close() }, nil
	}
	return nil, nil, fmt.Errorf("no kind %q", req.Kind)
}

// One question by a client of its own.
func wrapperAsk(ctx context.Context, req request) (object, error) {
	own, err := openIdentity(ctx, req)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	ask, done, err := newAsker(req, own)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := ask(ctx)
	if err != nil {
		return nil, err
	}
	return object{"reply": got.text, "peer": got.peer, "protocol": got.protocol}, nil
}

// So many questions a second by one client, whatever becomes of those before.
func wrapperSteady(ctx context.Context, req request) (object, error) {
	own, err := openIdentity(ctx, req)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	ask, done, err := newAsker(req, own)
	if err != nil {
		return nil, err
	}
	defer done()
	var (
		wait   sync.WaitGroup
		mu     sync.Mutex
		took   []float64
		failed = []object{}
		asked  int
		faults int
	)
	ticker := time.NewTicker(time.Second / time.Duration(req.PerSecond))
	defer ticker.Stop()
	started := time.Now()
	for end := started.Add(time.Duration(req.DurationMs) * time.Millisecond); time.Now().Before(end); {
		<-ticker.C
		asked++
		wait.Add(1)
		go func() {
			defer wait.Done()
			from := time.Now()
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			got, err := ask(ctx)
			if err == nil && got.text != req.Message {
				err = fmt.Errorf("answer %q", got.text)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				took = append(took, float64(time.Since(from).Microseconds())/1000)
				return
			}
			faults++
			if len(failed) < 20 {
				failed = append(failed, object{"message": fmt.Sprintf("at %d ms: %v", from.Sub(started).Milliseconds(), err), "code": ""})
			}
		}()
	}
	wait.Wait()
	slices.Sort(took)
	share := func(part float64) float64 {
		if len(took) == 0 {
			return 0
		}
		return took[int(float64(len(took)-1)*part)]
	}
	return object{"asked": asked, "failed": faults, "failures": failed, "medianMs": share(0.5), "p99Ms": share(0.99), "maxMs": share(1)}, nil
}
