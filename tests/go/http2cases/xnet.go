package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"golang.org/x/net/http2/hpack"
)

// newXnet serves and calls with golang.org/x/net/http2.
func newXnet(mux *http.ServeMux) *caller {
	server := xnetServer(mux, 0)
	small := xnetServer(mux, 4096)
	certificates := x509.NewCertPool()
	certificates.AddCert(server.Certificate())
	fresh := func() *http.Client {
		return &http.Client{Transport: &http2.Transport{TLSClientConfig: trusting(certificates)}}
	}
	configured := func() *http.Client {
		transport := &http.Transport{TLSClientConfig: trusting(certificates)}
		if err := http2.ConfigureTransport(transport); err != nil {
			panic(err)
		}
		return &http.Client{Transport: transport}
	}
	return &caller{
		url: server.URL, client: fresh(), smallURL: small.URL, smallClient: fresh(), fresh: fresh,
		plaintext: xnetPlaintext(mux), frames: frames, configured: configured, certificate: server.TLS,
	}
}

func xnetServer(mux *http.ServeMux, maxHeaderBytes int) *httptest.Server {
	server := httptest.NewUnstartedServer(mux)
	server.Config.MaxHeaderBytes = maxHeaderBytes
	if err := http2.ConfigureServer(server.Config, &http2.Server{}); err != nil {
		panic(err)
	}
	server.TLS = server.Config.TLSConfig
	server.StartTLS()
	return server
}

// plain makes a transport of HTTP/2 without TLS.
func plain() *http2.Transport {
	return &http2.Transport{
		AllowHTTP: true,
		DialTLS: func(network, address string, _ *tls.Config) (net.Conn, error) {
			return net.Dial(network, address)
		},
	}
}

func xnetPlaintext(mux *http.ServeMux) func(context.Context, string) outcome {
	server := httptest.NewServer(h2c.NewHandler(mux, &http2.Server{}))
	client := &http.Client{Transport: plain()}
	return func(ctx context.Context, path string) outcome {
		request, _ := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
		return outcomeOf(client.Do(request))
	}
}

// frames calls a server that knows frames, not HTTP, and refuses the first streams. It allows frames of
// 16384 bytes. The request has a header of so many bytes, of a letter that no coding makes shorter.
func frames(ctx context.Context, refusals int, filler int) outcome {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return outcome{Error: err.Error()}
	}
	defer listener.Close()
	var lock sync.Mutex
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serveFrames(conn, func(framer *http2.Framer, stream uint32) bool {
				lock.Lock()
				defer lock.Unlock()
				refusals--
				if refusals >= 0 {
					framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
				}
				return refusals < 0
			})
		}
	}()
	transport := plain()
	defer transport.CloseIdleConnections()
	request, _ := http.NewRequestWithContext(ctx, "GET", "http://"+listener.Addr().String()+"/echo/frames", nil)
	request.Header.Set("X-Filler", strings.Repeat("&", filler))
	return outcomeOf((&http.Client{Transport: transport}).Do(request))
}

// goingAway starts a server that closes its first connection at the first request, and others at the
// request after so many, by GOAWAY: those requests are to be tried again on another connection.
func goingAway(config *tls.Config, requests int) (url string, stop func()) {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		panic(err)
	}
	go func() {
		for left := 0; ; left = requests {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			left, last := left, uint32(0)
			go serveFrames(conn, func(framer *http2.Framer, stream uint32) bool {
				left--
				if left == -1 {
					framer.WriteGoAway(last, http2.ErrCodeNo, nil)
				}
				if left < 0 {
					return false
				}
				last = stream
				return true
			})
		}
	}()
	return "https://" + listener.Addr().String(), func() { listener.Close() }
}

// serveFrames answers requests that accepts says true of; it refuses the others itself.
func serveFrames(conn net.Conn, accepts func(framer *http2.Framer, stream uint32) bool) {
	defer conn.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := conn.Read(preface); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if !accepts(framer, frame.StreamID) {
				continue
			}
			values := []string{}
			for _, field := range frame.RegularFields() {
				if field.Name == "traceparent" {
					values = append(values, `"`+field.Value+`"`)
				}
			}
			var block strings.Builder
			hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: frame.StreamID, BlockFragment: []byte(block.String()), EndHeaders: true,
			})
			framer.WriteData(frame.StreamID, true, []byte(`{"proto":"HTTP/2.0","traceparent":[`+strings.Join(values, ",")+`]}`))
		}
	}
}
