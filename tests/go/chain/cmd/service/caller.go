package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"chain/internal/work"
)

// sharedHeader is one map that all requests of kind "shared" use at the same time, which is
// allowed as long as nobody writes to it.
var sharedHeader = http.Header{
	"Accept":     {"text/plain"},
	"X-Shared":   {"one map", "many requests"},
	"User-Agent": {"test chain"},
}

// caller makes the outgoing calls of front and middle.
type caller struct {
	service string
	next    *url.URL
	proxy   *httputil.ReverseProxy
	jobs    chan job // for the long-lived workers, see inWorker
}

func newCaller(service, next, ca string) (*caller, error) {
	target, err := url.Parse(next)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		MaxIdleConnsPerHost: 256, // keep all connections, whatever the concurrency
		// An empty map switches HTTP/2 off: a Go client prefers it over TLS otherwise.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	if ca != "" {
		content, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("no certificate in %s", ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	// The plain http.Get, http.Head and http.Post shall use it too.
	http.DefaultTransport = transport

	c := &caller{service: service, next: target, jobs: make(chan job)}
	c.proxy = newProxy(target)
	for i := 0; i < 16; i++ {
		go c.inWorker()
	}
	return c, nil
}

// passOn calls the next service and relays its answer.
func (c *caller) passOn(w http.ResponseWriter, r *http.Request, item work.Item) {
	if item.Kind == "proxy" {
		c.proxy.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	response, err := c.call(r, item, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	for _, name := range []string{"Content-Length", "Content-Range", "Content-Type"} {
		if value := response.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(response.StatusCode)
	io.Copy(w, response.Body) // if this breaks off, the client sees a short answer
}

// call makes the outgoing call in the way that the item's mode asks for.
func (c *caller) call(r *http.Request, item work.Item, body []byte) (*http.Response, error) {
	switch item.Mode {
	case "nocontext":
		return c.callWithoutContext(r, item, body)
	case "goroutine":
		return c.callElsewhere(r, item, body)
	default:
		return c.callWith(r.Context(), r, item, bytes.NewReader(body))
	}
}

// callWithoutContext uses the functions of net/http that take no context, where there is one.
func (c *caller) callWithoutContext(r *http.Request, item work.Item, body []byte) (*http.Response, error) {
	target := c.next.String() + item.Path()
	switch item.Kind {
	case "get":
		return http.Get(target)
	case "head":
		return http.Head(target)
	case "body":
		return http.Post(target, "application/octet-stream", bytes.NewReader(body))
	default: // a header has to be set, which takes a request
		return c.callWith(context.Background(), r, item, bytes.NewReader(body))
	}
}

// callElsewhere lets another goroutine make the call and waits for it. Half of the calls get a
// new goroutine; the other half go to workers that were there before the request came, so that
// nothing but the context tells to whom the call belongs.
func (c *caller) callElsewhere(r *http.Request, item work.Item, body []byte) (*http.Response, error) {
	// A context built on the request's own. The answer is read after this function has
	// returned, so the context is not cancelled here: it ends with the request's.
	type key struct{}
	ctx := context.WithValue(r.Context(), key{}, item.ID)
	ctx, _ = context.WithTimeout(ctx, time.Minute)

	result := make(chan outcome, 1)
	makeCall := func() {
		// MultiReader hides the length: the body is sent chunked.
		response, err := c.callWith(ctx, r, item, io.MultiReader(bytes.NewReader(body)))
		result <- outcome{response, err}
	}
	if item.ID/2%2 == 0 {
		go makeCall()
	} else {
		c.jobs <- makeCall
	}
	finished := <-result
	return finished.response, finished.err
}

type job func()

type outcome struct {
	response *http.Response
	err      error
}

func (c *caller) inWorker() {
	for makeCall := range c.jobs {
		makeCall()
	}
}

// callWith makes the call through a request object, with the header that the kind asks for.
func (c *caller) callWith(
	ctx context.Context, r *http.Request, item work.Item, body io.Reader,
) (*http.Response, error) {
	if item.Kind != "body" {
		body = nil
	}
	request, err := http.NewRequestWithContext(ctx, item.Method(), c.next.String()+item.Path(), body)
	if err != nil {
		return nil, err
	}
	switch item.Kind {
	case "range":
		request.Header.Set("Range", r.Header.Get("Range"))
	case "shared":
		request.Header = sharedHeader
	case "own":
		request.Header.Set("traceparent", work.OwnTraceparent(c.service, item.ID))
	case "ownlower":
		request.Header["traceparent"] = []string{work.OwnTraceparent(c.service, item.ID)}
	case "bighead":
		for name, values := range r.Header {
			if strings.HasPrefix(name, work.FillPrefix) {
				request.Header[name] = values
			}
		}
	}
	return http.DefaultClient.Do(request)
}
