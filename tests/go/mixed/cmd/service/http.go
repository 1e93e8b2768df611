package main

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"mixed/internal/witness"
	"mixed/internal/work"
)

// answer is what one HTTP service does with a request that the witness has seen.
type answer func(w http.ResponseWriter, r *http.Request, item work.Item)

// witnessed makes a handler of an answer.
func witnessed(notes *witness.Log, protocol string, answer answer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(work.Route, func(w http.ResponseWriter, r *http.Request) {
		item, err := work.FromPath(r.URL.Path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		record := notes.Begin("received", item, protocol, r.Method)
		record.Traceparent = append(record.Traceparent, r.Header.Values("Traceparent")...)
		record.Remote = r.RemoteAddr
		noting := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { notes.End(record, noting.status) }()
		if got := r.Proto; (got == "HTTP/2.0") != (protocol == "http/2") {
			http.Error(noting, "it came as "+got, http.StatusHTTPVersionNotSupported)
			return
		}
		answer(noting, r, item)
	})
	return mux
}

// statusWriter keeps the status for the witness.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// httpCaller makes the outgoing calls of a service that speaks HTTP.
type httpCaller struct {
	service  string
	next     string // base URL
	protocol string
	client   *http.Client
	notes    *witness.Log
}

// call makes one request. `received` are the traceparents that came in.
func (c *httpCaller) call(
	ctx context.Context, item work.Item, received []string, body []byte,
) (*http.Response, error) {
	request, err := c.request(ctx, item, received, body)
	if err != nil {
		return nil, err
	}
	record := c.notes.Begin("called", item, c.protocol, item.Method())
	response, err := c.client.Do(request)
	status := 0
	if err == nil {
		status = response.StatusCode
	}
	c.notes.End(record, status)
	return response, err
}

func (c *httpCaller) request(
	ctx context.Context, item work.Item, received []string, body []byte,
) (*http.Request, error) {
	var content io.Reader
	if item.Method() == http.MethodPost {
		content = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, item.Method(), c.next+item.Path(), content)
	if err != nil {
		return nil, err
	}
	if content != nil && item.Mode == "goroutine" {
		// Of unknown length. GetBody stays: without it a call that finds its connection closing cannot be
		// made again on another one, which has nothing to do with tracing.
		request.ContentLength = -1
	}
	for _, field := range item.Fields() {
		request.Header.Set(field.Name, field.Value)
	}
	switch {
	case item.Kind == "ownlast" || item.Kind == "owncreds": // a key that is not canonical
		request.Header["traceparent"] = []string{work.OwnTraceparent(c.service, item.ID)}
	case item.Own():
		request.Header.Set("Traceparent", work.OwnTraceparent(c.service, item.ID))
	case item.Kind == "proxy" && len(received) > 0:
		request.Header["Traceparent"] = received
	}
	return request, nil
}
