package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// caller makes the outgoing calls of /call/KIND.
type caller struct {
	self  string // base URL of this program
	http2 *httptest.Server
}

func newCaller() *caller { return &caller{} }

func (c *caller) serve(w http.ResponseWriter, r *http.Request) {
	kind := callKind(r)
	ctx := r.Context()
	switch kind {
	case "plain":
		resp, err := c.get(ctx, c.self+"/echo/plain", nil)
		answer(w, resp, err)
	case "refused":
		resp, err := c.get(ctx, "http://"+closedPort()+"/refused", nil)
		answer(w, resp, err)
	case "redirect":
		resp, err := c.get(ctx, c.self+"/redirect", nil)
		answer(w, resp, err)
	case "cancel":
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		resp, err := c.get(ctx, c.self+"/slow", nil)
		answer(w, resp, err)
	case "longurl": // fills the 4096 bytes of the writer's buffer up to a few
		resp, err := c.get(ctx, c.self+"/echo/"+strings.Repeat("x", 3960), nil)
		answer(w, resp, err)
	case "bigheaders": // more than eight entries: a table of groups; the application's own is among them
		headers := http.Header{}
		for i := 0; i < 40; i++ {
			headers.Set(fmt.Sprintf("X-Filler-%d", i), "v")
		}
		headers["traceparent"] = []string{"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}
		resp, err := c.get(ctx, c.self+"/echo/bigheaders", headers)
		answer(w, resp, err)
	case "invalidown":
		resp, err := c.get(ctx, c.self+"/echo/invalidown", http.Header{"Traceparent": {"nonsense"}})
		answer(w, resp, err)
	case "http2":
		request, _ := http.NewRequestWithContext(ctx, "GET", c.http2.URL+"/echo/http2", nil)
		resp, err := c.http2.Client().Do(request)
		answer(w, resp, err)
	case "retry":
		resp, err := c.retried(ctx)
		answer(w, resp, err)
	case "sharedrequest": // against the documentation of RoundTripper, but it works
		request, _ := http.NewRequestWithContext(ctx, "GET", c.self+"/echo/sharedrequest", nil)
		var wait sync.WaitGroup
		for i := 0; i < 8; i++ {
			wait.Add(1)
			go func() {
				defer wait.Done()
				if resp, err := http.DefaultTransport.RoundTrip(request); err == nil {
					resp.Body.Close()
				}
			}()
		}
		wait.Wait()
		answer(w, nil, errors.New("no answer is kept"))
	default:
		http.NotFound(w, r)
	}
}

func (c *caller) get(ctx context.Context, url string, headers http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	if headers != nil {
		request.Header = headers
	}
	return http.DefaultClient.Do(request)
}

func closedPort() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// retried calls a server that closes a kept-alive connection instead of answering its second
// request: the transport tries that one again on a new connection.
func (c *caller) retried(ctx context.Context) (*http.Response, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	go func() {
		for i := 0; i < 2; i++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serveOneThenClose(conn)
		}
	}()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for i := 0; ; i++ {
		request, _ := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://%s/retry/%d", listener.Addr(), i), nil)
		resp, err := client.Do(request)
		if err != nil || i == 1 {
			return resp, err
		}
		var discard [512]byte
		for {
			if _, err := resp.Body.Read(discard[:]); err != nil {
				break
			}
		}
		resp.Body.Close()
	}
}

func serveOneThenClose(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	values := request.Header.Values("Traceparent")
	body := `{"traceparent":null}`
	if len(values) > 0 {
		body = fmt.Sprintf(`{"traceparent":["%s"]}`, strings.Join(values, `","`))
	}
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	http.ReadRequest(reader)
}
