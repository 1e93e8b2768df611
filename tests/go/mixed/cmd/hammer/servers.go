package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"mixed/internal/complaints"
	"mixed/internal/rpc"
	"mixed/internal/witness"
	"mixed/internal/work"
)

// protocols are all that is served and called: with and without TLS.
var protocols = []string{"http", "https", "http2", "grpc", "grpcs"}

// traced is what a tracer calls them.
var traced = map[string]string{
	"http": "http/1.1", "https": "http/1.1", "http2": "http/2", "grpc": "grpc", "grpcs": "grpc",
}

// servers serve every protocol on a port of its own. An answer repeats the id of the request.
type servers struct {
	notes     *witness.Log
	addresses map[string]string
	https     []*http.Server
	grpcs     []*grpc.Server
	next      func(ctx context.Context, id int) error
}

func listen(notes *witness.Log, cert, key string) (*servers, error) {
	s := &servers{notes: notes, addresses: map[string]string{}}
	for _, protocol := range protocols {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		s.addresses[protocol] = listener.Addr().String()
		if strings.HasPrefix(protocol, "grpc") {
			err = s.serveGRPC(protocol, listener, cert, key)
		} else {
			s.serveHTTP(protocol, listener, cert, key)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// passOn makes each request lead to one call. No request may have come before.
func (s *servers) passOn(next func(ctx context.Context, id int) error) { s.next = next }

func (s *servers) serveHTTP(protocol string, listener net.Listener, cert, key string) {
	server := &http.Server{ErrorLog: complaints.Log("")}
	if protocol == "https" {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} // no HTTP/2
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/call/"))
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
		}
		if err == nil {
			err = s.receive(r.Context(), protocol, r.Method, id, r.Header.Values("Traceparent"))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, id)
	})
	s.https = append(s.https, server)
	go func() {
		err := http.ErrServerClosed
		if protocol == "http" {
			err = server.Serve(listener)
		} else {
			err = server.ServeTLS(listener, cert, key)
		}
		if err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
}

func (s *servers) serveGRPC(protocol string, listener net.Listener, cert, key string) error {
	settings := []grpc.ServerOption{grpc.ForceServerCodec(rpc.Codec{})}
	if protocol == "grpcs" {
		secure, err := credentials.NewServerTLSFromFile(cert, key)
		if err != nil {
			return err
		}
		settings = append(settings, grpc.Creds(secure))
	}
	server := grpc.NewServer(settings...)
	server.RegisterService(&rpc.Description, grpcService{s, protocol})
	s.grpcs = append(s.grpcs, server)
	go func() {
		if err := server.Serve(listener); err != nil {
			log.Fatal(err)
		}
	}()
	return nil
}

type grpcService struct {
	*servers
	protocol string
}

func (s grpcService) Unary(ctx context.Context, request *rpc.Message) (*rpc.Message, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("call-id")
	if len(values) != 1 {
		return nil, status.Errorf(codes.InvalidArgument, "call-id is %q", values)
	}
	id, err := strconv.Atoi(values[0])
	if err == nil {
		err = s.receive(ctx, s.protocol, rpc.FullMethod("Unary"), id, md.Get("traceparent"))
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &rpc.Message{Body: []byte(strconv.Itoa(id))}, nil
}

func (s grpcService) Stream(grpc.ServerStream) error {
	return status.Error(codes.Unimplemented, "there are no streams here")
}

func (s *servers) receive(ctx context.Context, protocol, method string, id int, traceparent []string) error {
	record := s.notes.Begin("received", work.Item{ID: id, Mode: protocol, Kind: kindOf(id)}, traced[protocol], method)
	record.Traceparent = append(record.Traceparent, traceparent...)
	defer s.notes.End(record, 0)
	if s.next == nil {
		return nil
	}
	return s.next(ctx, id)
}

func (s *servers) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, server := range s.https {
		if err := server.Shutdown(ctx); err != nil {
			server.Close()
		}
	}
	for _, server := range s.grpcs {
		server.Stop()
	}
}
