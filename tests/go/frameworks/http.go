package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
)

// certificates are the files that TLS needs.
type certificates struct{ cert, key, ca string }

func (c *certificates) trusted() (*tls.Config, error) {
	content, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("no certificate in %s", c.ca)
	}
	return &tls.Config{RootCAs: roots}, nil
}

// complaints are what net/http says on standard error, except that a client closed connections that
// it had not used: it dials one for each request that waits for an HTTP/2 connection, keeps the first.
type complaints struct{}

func (complaints) Write(line []byte) (int, error) {
	for _, harmless := range []string{"TLS handshake error", "error reading preface from client"} {
		if bytes.Contains(line, []byte(harmless)) {
			return len(line), nil
		}
	}
	return os.Stderr.Write(line)
}

// answer lets the receiver handle a request and answers with its id.
func answer(w http.ResponseWriter, r *http.Request, receive receiver, id, route string) {
	if err := receive(r.Context(), received{id, route, r.Header.Values("Traceparent")}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, id)
}

func serveMux(receive receiver) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(callRoute, func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, receive, strings.TrimPrefix(r.URL.Path, "/call/"), callRoute)
	})
	return mux
}

type serving = func(net.Listener, *certificates, receiver) error

func servePlain(handler func(receiver) http.Handler) serving {
	return func(listener net.Listener, _ *certificates, receive receiver) error {
		server := &http.Server{Handler: handler(receive), ErrorLog: log.New(complaints{}, "", 0)}
		return server.Serve(listener)
	}
}

// serveTLS serves HTTP/2 by what is in net/http.
func serveTLS(handler func(receiver) http.Handler) serving {
	return func(listener net.Listener, files *certificates, receive receiver) error {
		server := &http.Server{Handler: handler(receive), ErrorLog: log.New(complaints{}, "", 0)}
		return server.ServeTLS(listener, files.cert, files.key)
	}
}

// serveNetTLS serves HTTP/2 by golang.org/x/net/http2.
func serveNetTLS(listener net.Listener, files *certificates, receive receiver) error {
	server := &http.Server{Handler: serveMux(receive), ErrorLog: log.New(complaints{}, "", 0)}
	if err := http2.ConfigureServer(server, &http2.Server{}); err != nil {
		return err
	}
	return server.ServeTLS(listener, files.cert, files.key)
}

// serveProxy passes everything on, with its headers.
func serveProxy(notes *witness, f framework, next string) serving {
	return func(listener net.Listener, files *certificates, _ receiver) error {
		trusted, err := files.trusted()
		if err != nil {
			return err
		}
		addresses, err := parse(next)
		if err != nil {
			return err
		}
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: addresses[f.name]})
		proxy.Transport = &http.Transport{TLSClientConfig: trusted, ForceAttemptHTTP2: true}
		handler := func(receiver) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				id := strings.TrimPrefix(r.URL.Path, "/call/")
				if _, err := notes.note(f, received{id, "", r.Header.Values("Traceparent")}); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
				proxy.ServeHTTP(w, r)
			})
		}
		return serveTLS(handler)(listener, files, nil)
	}
}

func plainClient(address string, _ *certificates) (caller, error) {
	return calling(&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, "http://"+address), nil
}

func secureClient(address string, files *certificates) (caller, error) {
	trusted, err := files.trusted()
	transport := &http.Transport{TLSClientConfig: trusted, ForceAttemptHTTP2: true}
	return calling(&http.Client{Transport: transport}, "https://"+address), err
}

// wrapped is a RoundTripper of the application's own, as they are used for tokens and logs.
type wrapped struct{ inner http.RoundTripper }

func (w wrapped) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer of good news")
	return w.inner.RoundTrip(request)
}

func wrappedClient(address string, files *certificates) (caller, error) {
	trusted, err := files.trusted()
	transport := &http.Transport{TLSClientConfig: trusted, ForceAttemptHTTP2: true}
	return calling(&http.Client{Transport: wrapped{transport}}, "https://"+address), err
}

func netClient(address string, files *certificates) (caller, error) {
	trusted, err := files.trusted()
	return calling(&http.Client{Transport: &http2.Transport{TLSClientConfig: trusted}}, "https://"+address), err
}

func h2cClient(address string, _ *certificates) (caller, error) {
	transport := &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, address)
		},
	}
	return calling(&http.Client{Transport: transport}, "http://"+address), nil
}

func calling(client *http.Client, url string) caller {
	return func(ctx context.Context, id int, traceparent string) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/call/%d", url, id), nil)
		if err != nil {
			return err
		}
		if traceparent != "" {
			request.Header.Set("traceparent", traceparent)
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err == nil && string(body) != strconv.Itoa(id) {
			err = fmt.Errorf("answered was %s, %.200q", response.Status, body)
		}
		return err
	}
}
