// Program grpccases serves gRPC and calls itself over it, in all the ways that the tests ask for by HTTP.
//
// The server's answer to a call is the witness: the traceparent values that came in its metadata.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// raw lets messages be bytes: no generated code is needed.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v interface{}) ([]byte, error) { return *v.(*[]byte), nil }

func (raw) Unmarshal(data []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// seen is what the server tells of one call.
type seen struct {
	Traceparent []string
	Inner       []string `json:",omitempty"` // what the call that the handler made arrived with
	Call        string   `json:",omitempty"`
}

func witness(ctx context.Context) seen {
	md, _ := metadata.FromIncomingContext(ctx)
	found := seen{Traceparent: md.Get("traceparent")}
	if ids := md.Get("x-call"); len(ids) == 1 {
		found.Call = ids[0]
	}
	return found
}

type app struct{ conns map[string]*grpc.ClientConn }

func (a *app) call(ctx context.Context, conn *grpc.ClientConn, method string, text string) (seen, error) {
	in, out := []byte(text), []byte(nil)
	var found seen
	if err := conn.Invoke(ctx, method, &in, &out); err != nil {
		return found, err
	}
	return found, json.Unmarshal(out, &found)
}

// work does what the message asks for: "code 5", "sleep 1s", "inner", "panic", "flaky 2", "wait", or nothing.
func (a *app) work(ctx context.Context, text string) ([]byte, error) {
	found := witness(ctx)
	verb, rest, _ := strings.Cut(text, " ")
	switch verb {
	case "code":
		n, _ := strconv.Atoi(rest)
		return nil, status.Error(codes.Code(n), "as asked")
	case "plain":
		return nil, errors.New("not a status")
	case "panic":
		panic("as asked")
	case "flaky": // until the third attempt
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get("grpc-previous-rpc-attempts"); len(got) != 1 || got[0] != rest {
			return nil, status.Error(codes.Unavailable, "not yet")
		}
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	case "sleep":
		d, _ := time.ParseDuration(rest)
		time.Sleep(d)
	case "inner":
		inner, err := a.call(ctx, a.conns["plain"], "/cases.Echo/Unary", "")
		if err != nil {
			return nil, err
		}
		found.Inner = inner.Traceparent
	}
	return json.Marshal(found)
}

func (a *app) unary(_ interface{}, ctx context.Context, decode func(interface{}) error,
	interceptor grpc.UnaryServerInterceptor) (interface{}, error) {
	var in []byte
	if err := decode(&in); err != nil {
		return nil, err
	}
	handler := func(ctx context.Context, _ interface{}) (interface{}, error) {
		out, err := a.work(ctx, string(in))
		return &out, err
	}
	if interceptor == nil {
		return handler(ctx, &in)
	}
	return interceptor(ctx, &in, &grpc.UnaryServerInfo{FullMethod: "/cases.Echo/Unary"}, handler)
}

// stream answers the last message when the client has sent all of them, and "each" messages at once.
func (a *app) stream(_ interface{}, stream grpc.ServerStream) error {
	last := ""
	for {
		var in []byte
		err := stream.RecvMsg(&in)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		last = string(in)
		if strings.HasPrefix(last, "each") || last == "wait" {
			out, _ := json.Marshal(witness(stream.Context()))
			if err := stream.SendMsg(&out); err != nil {
				return err
			}
		}
		if last == "wait" {
			break
		}
	}
	if strings.HasPrefix(last, "each") {
		return nil
	}
	out, err := a.work(stream.Context(), last)
	if err != nil {
		return err
	}
	return stream.SendMsg(&out)
}

func recoverPanic(ctx context.Context, req interface{}, _ *grpc.UnaryServerInfo,
	handler grpc.UnaryHandler) (out interface{}, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = status.Errorf(codes.Internal, "%v", r)
		}
	}()
	return handler(ctx, req)
}

func (a *app) server(options ...grpc.ServerOption) *grpc.Server {
	options = append(options, grpc.ForceServerCodec(raw{}), grpc.UnaryInterceptor(recoverPanic),
		grpc.MaxHeaderListSize(1<<20), grpc.UnknownServiceHandler(a.stream))
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "cases.Echo",
		HandlerType: (*interface{})(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: a.unary}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", Handler: a.stream,
			ClientStreams: true, ServerStreams: true}},
	}, a)
	return server
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func dial(address string, options ...grpc.DialOption) *grpc.ClientConn {
	options = append(options, grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	conn, err := grpc.Dial(address, options...)
	if err != nil {
		log.Fatal(err)
	}
	return conn
}

func plain() grpc.DialOption { return grpc.WithTransportCredentials(insecure.NewCredentials()) }

// retries makes grpc try a call again where its server is unavailable.
const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.01s",
	"maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func (a *app) start() {
	plainListener, tlsListener, workers, overHTTP := listen(), listen(), listen(), listen()
	certificate, pool := certificates()
	go a.server().Serve(plainListener)
	go a.server(grpc.Creds(credentials.NewServerTLSFromCert(&certificate))).Serve(tlsListener)
	go a.server(grpc.NumStreamWorkers(2)).Serve(workers)
	go serveHTTP(overHTTP, certificate, a.server())
	secure := grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, "localhost"))
	a.conns = map[string]*grpc.ClientConn{
		"plain":      dial(plainListener.Addr().String(), plain()),
		"tls":        dial(tlsListener.Addr().String(), secure),
		"workers":    dial(workers.Addr().String(), plain()),
		"http":       dial(overHTTP.Addr().String(), secure),
		"retrying":   dial(plainListener.Addr().String(), plain(), grpc.WithDefaultServiceConfig(retries)),
		"refused":    dial("127.0.0.1:1", plain()),
		"unbuffered": dial(plainListener.Addr().String(), plain(), grpc.WithWriteBufferSize(0)),
	}
}

func answer(w http.ResponseWriter, value interface{}, err error) {
	result := map[string]interface{}{"seen": value, "code": int(status.Code(err))}
	if err != nil {
		result["error"] = err.Error()
	}
	json.NewEncoder(w).Encode(result)
}

// conn is the connection that ?on= names; "fresh" ones are made for this request alone.
func (a *app) conn(r *http.Request) (*grpc.ClientConn, func()) {
	name := r.FormValue("on")
	if name == "fresh" {
		conn := dial(a.conns["plain"].Target(), plain())
		return conn, func() { conn.Close() }
	}
	if name == "" {
		name = "plain"
	}
	return a.conns[name], func() {}
}

// ?set= sets traceparent, ?fields= so many other fields in front of it, ?bytes= one of that size.
func withMetadata(ctx context.Context, r *http.Request) context.Context {
	fields, _ := strconv.Atoi(r.FormValue("fields"))
	size, _ := strconv.Atoi(r.FormValue("bytes"))
	for i := 0; i < fields; i++ {
		ctx = metadata.AppendToOutgoingContext(ctx, fmt.Sprintf("x-field-%d", i), strconv.Itoa(i))
	}
	if size > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-size", strings.Repeat("~", size))
	}
	if value := r.FormValue("set"); value != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", value)
	}
	if r.FormValue("forward") != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", r.Header.Get("traceparent"))
	}
	return ctx
}

func (a *app) unaryCase(w http.ResponseWriter, r *http.Request) {
	ctx := withMetadata(r.Context(), r)
	if value := r.FormValue("timeout"); value != "" {
		d, _ := time.ParseDuration(value)
		limited, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		ctx = limited
	}
	if value := r.FormValue("cancel"); value != "" {
		d, _ := time.ParseDuration(value)
		cancelled, cancel := context.WithCancel(ctx)
		time.AfterFunc(d, cancel)
		ctx = cancelled
	}
	if r.FormValue("background") != "" {
		ctx = context.Background()
	}
	conn, done := a.conn(r)
	defer done()
	method := r.FormValue("method")
	if method == "" {
		method = "/cases.Echo/Unary"
	}
	found, err := a.call(ctx, conn, method, r.FormValue("do"))
	answer(w, found, err)
}

func (a *app) streamCase(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(withMetadata(r.Context(), r))
	defer cancel()
	conn, done := a.conn(r)
	defer done()
	desc := &grpc.StreamDesc{StreamName: "Stream", ClientStreams: true, ServerStreams: true}
	stream, err := conn.NewStream(ctx, desc, "/cases.Echo/Stream")
	if err != nil {
		answer(w, nil, err)
		return
	}
	count, _ := strconv.Atoi(r.FormValue("n"))
	result := make(chan []seen)
	go func() { // received in another goroutine, as streams often are
		var all []seen
		for {
			var out []byte
			var one seen
			if err = stream.RecvMsg(&out); err != nil {
				break
			}
			json.Unmarshal(out, &one)
			all = append(all, one)
			if r.FormValue("do") == "wait" {
				cancel()
			}
		}
		result <- all
	}()
	for i := 0; i < count; i++ {
		in := []byte(r.FormValue("do"))
		if stream.SendMsg(&in) != nil {
			break
		}
	}
	stream.CloseSend()
	all := <-result
	if err == io.EOF {
		err = nil
	}
	answer(w, all, err)
}

// manyCase makes ?n= calls at once, each to a method of its own.
func (a *app) manyCase(w http.ResponseWriter, r *http.Request) {
	count, _ := strconv.Atoi(r.FormValue("n"))
	at, _ := strconv.Atoi(r.FormValue("at"))
	size, _ := strconv.Atoi(r.FormValue("message"))
	conn, done := a.conn(r)
	defer done()
	conns := []*grpc.ClientConn{conn}
	if r.FormValue("on") == "several" { // whose streams have the same ids
		conns = []*grpc.ClientConn{a.conns["plain"], a.conns["tls"], a.conns["workers"], a.conns["retrying"]}
	}
	all := make([]seen, count)
	tickets := make(chan int)
	var wait sync.WaitGroup
	var mutex sync.Mutex
	var failed error
	for j := 0; j < at; j++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range tickets {
				ctx := metadata.AppendToOutgoingContext(withMetadata(r.Context(), r), "x-call", strconv.Itoa(i))
				found, err := a.call(ctx, conns[i%len(conns)], fmt.Sprintf("/cases.Many/Call%d", i), strings.Repeat("x", size))
				if err != nil {
					mutex.Lock()
					failed = err
					mutex.Unlock()
				}
				all[i] = found
			}
		}()
	}
	for i := 0; i < count; i++ {
		tickets <- i
	}
	close(tickets)
	wait.Wait()
	answer(w, all, failed)
}

// brokenCase calls a server whose connections are cut while the handler works.
func (a *app) brokenCase(w http.ResponseWriter, r *http.Request) {
	listener := listen()
	server := a.server()
	go server.Serve(listener)
	conn := dial(listener.Addr().String(), plain())
	defer conn.Close()
	time.AfterFunc(100*time.Millisecond, server.Stop)
	found, err := a.call(r.Context(), conn, "/cases.Echo/Unary", r.FormValue("do"))
	answer(w, found, err)
}

func main() {
	a := &app{}
	a.start()
	http.HandleFunc("/unary", a.unaryCase)
	http.HandleFunc("/stream", a.streamCase)
	http.HandleFunc("/many", a.manyCase)
	http.HandleFunc("/broken", a.brokenCase)
	listener := listen()
	fmt.Println(listener.Addr())
	os.Stdout.Close()
	log.Fatal(http.Serve(listener, nil))
}
