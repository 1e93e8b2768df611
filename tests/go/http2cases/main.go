// Command http2cases is a traced program that serves and calls over HTTP/2, with net/http's own
// implementation and with golang.org/x/net/http2. Its first line of output says where it listens for
// HTTP/1; /call/KIND and /xnet/KIND make outgoing calls to itself and answer with what came of them.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// outcome is what the caller saw, and which traceparent values the callee did.
type outcome struct {
	Status      int      `json:"status"`
	Error       string   `json:"error"`
	Proto       string   `json:"proto"`
	Traceparent []string `json:"traceparent"`
	ID          string   `json:"id"`
}

// echo answers with the traceparent values that arrived.
func echo(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	json.NewEncoder(w).Encode(outcome{
		Proto: r.Proto, Traceparent: r.Header.Values("Traceparent"), ID: r.Header.Get("X-Id"),
	})
}

// outcomeOf reads the callee's answer.
func outcomeOf(resp *http.Response, err error) outcome {
	if err != nil {
		return outcome{Error: err.Error()}
	}
	defer resp.Body.Close()
	seen := outcome{}
	json.NewDecoder(resp.Body).Decode(&seen)
	seen.Status = resp.StatusCode
	return seen
}

func newMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo/", echo)
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/implicit", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/missing", http.NotFound)
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(5 * time.Second):
		case <-r.Context().Done():
		}
	})
	return mux
}

func main() {
	log.SetFlags(0)
	log.SetOutput(io.Discard)
	mux := newMux()
	own := newOwn(mux)
	xnet := newXnet(mux)
	mux.HandleFunc("/call/", func(w http.ResponseWriter, r *http.Request) {
		own.serve(w, r, strings.TrimPrefix(r.URL.Path, "/call/"))
	})
	mux.HandleFunc("/xnet/", func(w http.ResponseWriter, r *http.Request) {
		xnet.serve(w, r, strings.TrimPrefix(r.URL.Path, "/xnet/"))
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	panic(http.Serve(listener, mux))
}

// newOwn serves and calls with what net/http brings along.
func newOwn(mux *http.ServeMux) *caller {
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	small := httptest.NewUnstartedServer(mux)
	small.EnableHTTP2 = true
	small.Config.MaxHeaderBytes = 4096
	small.StartTLS()
	certificates := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	fresh := func() *http.Client {
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: trusting(certificates)}
		return &http.Client{Transport: transport}
	}
	return &caller{
		url: server.URL, client: server.Client(), smallURL: small.URL, smallClient: small.Client(),
		fresh: fresh, configured: fresh,
		plaintext: ownPlaintext(mux), certificate: server.TLS,
	}
}
