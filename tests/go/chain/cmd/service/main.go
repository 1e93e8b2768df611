// Command service is one link of the test chain
//
//	driver -> front -> HTTPS -> middle -> HTTP -> back
//
// It is an ordinary net/http program that knows nothing about tracing. What it received it
// writes down as a witness. With -next it passes each request on and relays the answer;
// without, it is the last one and makes the answer.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"chain/internal/witness"
	"chain/internal/work"
)

type options struct {
	name    string
	listen  string
	next    string
	witness string
	cert    string
	key     string
	ca      string
}

func main() {
	var opts options
	flag.StringVar(&opts.name, "name", "", "front, middle or back")
	flag.StringVar(&opts.listen, "listen", "127.0.0.1:0", "address to listen on")
	flag.StringVar(&opts.next, "next", "", "base URL of the next service; empty for the last one")
	flag.StringVar(&opts.witness, "witness", "", "file for one JSON line per received request")
	flag.StringVar(&opts.cert, "cert", "", "certificate: serve HTTPS (needs -key)")
	flag.StringVar(&opts.key, "key", "", "private key of -cert")
	flag.StringVar(&opts.ca, "ca", "", "certificate authority to trust in outgoing calls")
	flag.Parse()
	log.SetPrefix(opts.name + ": ")

	// From here on a SIGTERM ends the program in an orderly way.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, opts); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, opts options) error {
	notes, err := witness.Open(opts.witness)
	if err != nil {
		return err
	}
	answer := answerMyself
	if opts.next != "" {
		caller, err := newCaller(opts.name, opts.next, opts.ca)
		if err != nil {
			return err
		}
		answer = caller.passOn
	}

	mux := http.NewServeMux()
	mux.HandleFunc(work.Route, func(w http.ResponseWriter, r *http.Request) {
		item, err := work.FromRequest(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := notes.Note(opts.name, item, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, r, item)
	})
	server := &http.Server{
		Handler: mux,
		// An empty map switches HTTP/2 off: the chain speaks HTTP/1.1 also over TLS.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}

	listener, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr()) // the first line of output: whoever started us reads the port here

	served := make(chan error, 1)
	go func() {
		if opts.cert != "" {
			served <- server.ServeTLS(listener, opts.cert, opts.key)
		} else {
			served <- server.Serve(listener)
		}
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// Requests in flight are finished first, then the witness is complete.
	deadline, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		return err
	}
	return notes.Close()
}

// answerMyself is what the last service does. ServeContent does the work for HEAD and Range.
func answerMyself(w http.ResponseWriter, r *http.Request, item work.Item) {
	received, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(item.FullAnswer(received)))
}
