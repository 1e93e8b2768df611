package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"mixed/internal/rpc"
	"mixed/internal/work"
)

// clients call one process by every protocol.
type clients struct {
	addresses map[string]string
	https     map[string]*http.Client
	grpcs     map[string]*grpc.ClientConn
}

func newClients(addresses map[string]string, ca string) (*clients, error) {
	content, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("no certificate in %s", ca)
	}
	trusted := func() *tls.Config { return &tls.Config{RootCAs: roots} }
	transport := func() *http.Transport {
		return &http.Transport{TLSClientConfig: trusted(), MaxIdleConnsPerHost: 256}
	}
	http1, http2 := transport(), transport()
	http1.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{} // no HTTP/2
	http2.ForceAttemptHTTP2 = true
	c := &clients{addresses, map[string]*http.Client{
		"http": {Transport: transport()}, "https": {Transport: http1}, "http2": {Transport: http2},
	}, map[string]*grpc.ClientConn{}}
	for protocol, secure := range map[string]credentials.TransportCredentials{
		"grpc": insecure.NewCredentials(), "grpcs": credentials.NewTLS(trusted()),
	} {
		codec := grpc.WithDefaultCallOptions(grpc.ForceCodec(rpc.Codec{}))
		conn, err := grpc.Dial(addresses[protocol], grpc.WithTransportCredentials(secure), codec)
		if err != nil {
			return nil, err
		}
		c.grpcs[protocol] = conn
	}
	return c, nil
}

// call makes one call and says whether the answer was the right one. `own` is a traceparent that the
// application sets itself, or empty.
func (c *clients) call(ctx context.Context, protocol string, id int, own string) error {
	if conn := c.grpcs[protocol]; conn != nil {
		return c.callGRPC(ctx, conn, id, own)
	}
	method, body := http.MethodGet, []byte(nil)
	if id%11 == 0 {
		method, body = http.MethodPost, bytes.Repeat([]byte("x"), id%9000)
	}
	url := "http://" + c.addresses[protocol]
	if protocol != "http" {
		url = "https://" + c.addresses[protocol]
	}
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("%s/call/%d", url, id), bytes.NewReader(body))
	if err != nil {
		return err
	}
	if own != "" {
		request.Header["traceparent"] = []string{own}
	} else if id%13 == 0 {
		request.Header = sharedHeader
	}
	response, err := c.https[protocol].Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return check(id, response.StatusCode, answer)
}

// sharedHeader is one map that many requests use at the same time, over all protocols.
var sharedHeader = http.Header{"Accept": {"text/plain"}, "X-Shared": {"one map", "many requests"}}

func (c *clients) callGRPC(ctx context.Context, conn *grpc.ClientConn, id int, own string) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "call-id", strconv.Itoa(id))
	if own != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", own, "after", "it")
	}
	reply := new(rpc.Message)
	request := &rpc.Message{Body: bytes.Repeat([]byte("x"), id%3000)}
	if err := conn.Invoke(ctx, rpc.FullMethod("Unary"), request, reply); err != nil {
		return err
	}
	return check(id, http.StatusOK, reply.Body)
}

func check(id, status int, answer []byte) error {
	if status != http.StatusOK || string(answer) != strconv.Itoa(id) {
		return fmt.Errorf("call %d was answered by %d, %.100q", id, status, answer)
	}
	return nil
}

// kindOf says whether a call carries a traceparent of the application.
func kindOf(id int) string {
	if id%7 == 0 {
		return "own"
	}
	return "plain"
}

func ownOf(service string, id int) string {
	if kindOf(id) == "own" {
		return work.OwnTraceparent(service, id)
	}
	return ""
}
