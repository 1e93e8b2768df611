// Command cases is a traced program whose requests take unusual turns. Its first line of output
// says where it listens; /call/KIND makes an outgoing call and answers with what came of it.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"time"
)

// outcome is what the caller saw, and which traceparent values the callee did.
type outcome struct {
	Status      int      `json:"status"`
	Error       string   `json:"error"`
	Traceparent []string `json:"traceparent"`
}

// echo answers with the traceparent values that arrived.
func echo(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	json.NewEncoder(w).Encode(outcome{Status: 200, Traceparent: r.Header.Values("Traceparent")})
}

func answer(w http.ResponseWriter, resp *http.Response, err error) {
	if err != nil {
		json.NewEncoder(w).Encode(outcome{Error: err.Error()})
		return
	}
	defer resp.Body.Close()
	seen := outcome{}
	json.NewDecoder(resp.Body).Decode(&seen)
	seen.Status = resp.StatusCode
	json.NewEncoder(w).Encode(seen)
}

func newMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo/", echo)
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/implicit", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/missing", http.NotFound)
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/echo/redirected", http.StatusFound)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(5 * time.Second):
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			log.Print(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\nhello")
		conn.Close()
	})
	return mux
}

func main() {
	log.SetFlags(0)
	mux := newMux()
	calls := newCaller()
	mux.HandleFunc(callRoute, calls.serve)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	calls.self = "http://" + listener.Addr().String()
	calls.http2 = httptest.NewUnstartedServer(mux)
	calls.http2.EnableHTTP2 = true
	calls.http2.StartTLS()
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}
