package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"strconv"
	"sync"
	"time"
)

// caller makes the outgoing calls with one implementation of HTTP/2.
type caller struct {
	url         string
	client      *http.Client
	smallURL    string // of a server that accepts few headers
	smallClient *http.Client
	fresh       func() *http.Client // with no connection yet
	plaintext   func(ctx context.Context, path string) outcome
	frames      func(ctx context.Context, refusals, filler int) outcome
	configured  func() *http.Client // of net/http's Transport, by another package
	certificate *tls.Config         // of a server that fresh trusts
}

func trusting(roots *x509.CertPool) *tls.Config { return &tls.Config{RootCAs: roots} }

// text is random, so that no compression makes it shorter.
func text(length int) string {
	raw := make([]byte, length/2)
	rand.Read(raw)
	return hex.EncodeToString(raw)
}

func (c *caller) get(ctx context.Context, client *http.Client, url string, headers http.Header) outcome {
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return outcome{Error: err.Error()}
	}
	for name, values := range headers {
		request.Header[name] = values
	}
	return outcomeOf(client.Do(request))
}

func (c *caller) serve(w http.ResponseWriter, r *http.Request, kind string) {
	ctx := r.Context()
	echo := c.url + "/echo/" + kind
	number, _ := strconv.Atoi(r.URL.Query().Get("n"))
	seen := []outcome{{Error: "no such kind: " + kind}}
	switch kind {
	case "plain":
		seen[0] = c.get(ctx, c.client, echo, nil)
	case "nocontext":
		seen[0] = outcomeOf(c.client.Get(echo))
	case "detached":
		done := make(chan outcome)
		go func() { done <- c.get(context.Background(), c.client, echo, nil) }()
		seen[0] = <-done
	case "post":
		body := bytes.NewReader(bytes.Repeat([]byte("body"), 30_000))
		request, _ := http.NewRequestWithContext(ctx, "POST", echo, body)
		seen[0] = outcomeOf(c.client.Do(request))
	case "trailer":
		request, _ := http.NewRequestWithContext(ctx, "POST", echo, bytes.NewReader([]byte("body")))
		request.ContentLength = -1
		request.Trailer = http.Header{"X-Trailer": {"value"}}
		seen[0] = outcomeOf(c.client.Do(request))
	case "fresh":
		client := c.fresh()
		for i := 0; i < number; i++ {
			seen = append(seen[:i], c.get(ctx, client, echo, http.Header{"X-Id": {strconv.Itoa(i)}}))
		}
		client.CloseIdleConnections()
	case "sized": // a header of n bytes, twice over one connection: nothing of it is in any table
		client := c.fresh()
		for i := 0; i < 2; i++ {
			seen = append(seen[:i], c.get(ctx, client, echo, http.Header{"X-Filler": {text(number)}}))
		}
		client.CloseIdleConnections()
	case "small":
		seen[0] = c.get(ctx, c.smallClient, c.smallURL+"/echo/small", http.Header{"X-Filler": {text(number)}})
	case "own":
		headers := http.Header{}
		for i := 0; i < number; i++ {
			headers.Set(fmt.Sprintf("X-Filler-%d", i), "v")
		}
		headers["traceparent"] = []string{"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}
		seen[0] = c.get(ctx, c.client, echo, headers)
	case "invalidown":
		seen[0] = c.get(ctx, c.client, echo, http.Header{"Traceparent": {"nonsense"}})
	case "forward":
		seen[0] = c.get(ctx, c.client, echo, http.Header{"Traceparent": r.Header.Values("Traceparent")})
	case "missing", "panic", "implicit":
		seen[0] = c.get(ctx, c.client, c.url+"/"+kind, nil)
	case "cancel":
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		seen[0] = c.get(ctx, c.client, c.url+"/slow", nil)
	case "many": // streams of one connection
		seen = c.many(ctx, number, func(int) *http.Client { return c.client })
	case "connections": // streams with equal ids
		clients := make([]*http.Client, number)
		for i := range clients {
			clients[i] = c.fresh()
			defer clients[i].CloseIdleConnections()
		}
		seen = c.many(ctx, number, func(i int) *http.Client { return clients[i] })
	case "sharedrequest": // against the documentation of RoundTripper, but it works
		request, _ := http.NewRequestWithContext(ctx, "GET", echo, nil)
		seen = make([]outcome, number)
		each(number, func(i int) { seen[i] = outcomeOf(c.client.Transport.RoundTrip(request)) })
	case "plaintext":
		if c.plaintext != nil {
			seen[0] = c.plaintext(ctx, "/echo/plaintext")
		}
	case "refused":
		if c.frames != nil {
			seen[0] = c.frames(ctx, number, 0)
		}
	case "goaway", "goawayconfigured": // over connections that are closed under the calls
		url, stop := goingAway(c.certificate, 1)
		defer stop()
		client := c.fresh()
		if kind == "goawayconfigured" {
			client = c.configured()
		}
		for i := 0; i < number; i++ {
			seen = append(seen[:i], c.get(ctx, client, url+"/echo/"+strconv.Itoa(i), nil))
		}
		client.CloseIdleConnections()
	case "goawayproxy": // the second call, tried again, fails before it looks for a connection
		url, stop := goingAway(c.certificate, 1)
		defer stop()
		client := c.configured()
		client.Transport.(*http.Transport).Proxy = func(*http.Request) (*neturl.URL, error) {
			if len(seen) == 2 {
				return nil, errors.New("no proxy")
			}
			return nil, nil
		}
		seen[0] = c.get(ctx, client, url+"/echo/0", nil)
		seen = append(seen, outcome{})
		seen[1] = c.get(ctx, client, url+"/echo/1", nil)
		client.CloseIdleConnections()
	case "goawaybody": // the second call has a body that can be had twice only: HTTP/2 takes both
		url, stop := goingAway(c.certificate, 1)
		defer stop()
		client := c.configured()
		seen = []outcome{c.get(ctx, client, url+"/echo/0", nil), {}}
		request, _ := http.NewRequestWithContext(ctx, "POST", url+"/echo/1", bytes.NewReader([]byte("body")))
		left, again := 1, request.GetBody
		request.GetBody = func() (io.ReadCloser, error) {
			if left--; left < 0 {
				return nil, errors.New("no body")
			}
			return again()
		}
		seen[1] = outcomeOf(client.Do(request))
		client.CloseIdleConnections()
	case "goawaymany":
		url, stop := goingAway(c.certificate, 20)
		defer stop()
		client := c.fresh()
		seen = make([]outcome, number)
		each(number, func(i int) { seen[i] = c.get(ctx, client, url+"/echo/"+strconv.Itoa(i), nil) })
		client.CloseIdleConnections()
	case "frames":
		if c.frames != nil {
			seen[0] = c.frames(ctx, 0, number)
		}
	}
	json.NewEncoder(w).Encode(seen)
}

func each(number int, run func(i int)) {
	var wait sync.WaitGroup
	for i := 0; i < number; i++ {
		i := i
		wait.Add(1)
		go func() {
			defer wait.Done()
			run(i)
		}()
	}
	wait.Wait()
}

func (c *caller) many(ctx context.Context, number int, client func(i int) *http.Client) []outcome {
	seen := make([]outcome, number)
	each(number, func(i int) {
		id := strconv.Itoa(i)
		seen[i] = c.get(ctx, client(i), c.url+"/echo/"+id, http.Header{"X-Id": {id}})
	})
	return seen
}
