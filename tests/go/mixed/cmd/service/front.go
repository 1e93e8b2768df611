package main

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"

	"mixed/internal/witness"
	"mixed/internal/work"
)

// front takes HTTP/1.1 and calls over HTTP/2 and TLS.
type front struct {
	httpCaller
	workers
	proxy *httputil.ReverseProxy
}

func newFront(notes *witness.Log, next string, trusted *tls.Config) http.Handler {
	// HTTP/2 has to be asked for where there is a TLS configuration of one's own.
	transport := &http.Transport{TLSClientConfig: trusted, ForceAttemptHTTP2: true}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: next})
	proxy.Transport = transport
	f := &front{
		httpCaller: httpCaller{"front", "https://" + next, "http/2", &http.Client{Transport: transport}, notes},
		workers:    newWorkers(),
		proxy:      proxy,
	}
	return witnessed(notes, "http/1.1", f.answer)
}

func (f *front) answer(w http.ResponseWriter, r *http.Request, item work.Item) {
	if item.Kind == "proxy" {
		record := f.notes.Begin("called", item, f.protocol, r.Method)
		f.proxy.ServeHTTP(w, r)
		f.notes.End(record, w.(*statusWriter).status)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var status int
	var answer []byte
	f.workers.call(r.Context(), item, func(ctx context.Context) {
		status, answer, err = f.ask(ctx, item, r.Header.Values("Traceparent"), body)
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(status)
	if _, err := w.Write(answer); err != nil {
		log.Print(err)
	}
}

// ask calls the gateway and reads its answer, or of kind "h2cancel" only the first part.
func (f *front) ask(
	ctx context.Context, item work.Item, received []string, body []byte,
) (int, []byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := f.httpCaller.call(ctx, item, received, body)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if item.Kind == "h2cancel" {
		answer := make([]byte, work.FirstPart)
		_, err := io.ReadFull(response.Body, answer)
		cancel()
		return response.StatusCode, answer, err
	}
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}
