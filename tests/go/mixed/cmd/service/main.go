// Command service is one link of the mixed chain
//
//	driver -> front -> HTTP/2, TLS -> gateway -> grpc, TLS -> unary -> grpc streams -> stream -> HTTP/1.1 -> back
//
// Each is an ordinary program that knows nothing about tracing. What it received and whom it
// called it writes down as a witness. The name decides what it serves and whom it calls.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"mixed/internal/complaints"
	"mixed/internal/rpc"
	"mixed/internal/witness"
)

type options struct {
	name    string
	listen  string
	next    string
	witness string
	cert    string
	key     string
	ca      string
}

// server is what http.Server and grpc.Server have in common.
type server interface {
	serve(listener net.Listener) error
	shutdown(ctx context.Context) error
}

func main() {
	var opts options
	flag.StringVar(&opts.name, "name", "", "front, gateway, unary, stream or back")
	flag.StringVar(&opts.listen, "listen", "127.0.0.1:0", "address to listen on")
	flag.StringVar(&opts.next, "next", "", "address of the next service")
	flag.StringVar(&opts.witness, "witness", "", "file for the witness's lines of JSON")
	flag.StringVar(&opts.cert, "cert", "", "certificate of the services that serve TLS")
	flag.StringVar(&opts.key, "key", "", "private key of -cert")
	flag.StringVar(&opts.ca, "ca", "", "certificate authority to trust in outgoing calls")
	flag.Parse()
	log.SetPrefix(opts.name + ": ")

	// From here on a SIGTERM ends the program in an orderly way.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, opts); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, opts options) error {
	notes, err := witness.Open(opts.name, opts.witness)
	if err != nil {
		return err
	}
	server, err := newServer(opts, notes)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr()) // the first line of output: whoever started us reads the port here

	served := make(chan error, 1)
	go func() { served <- server.serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// Requests in flight are finished first, then the witness is complete.
	deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.shutdown(deadline); err != nil {
		return err
	}
	return notes.Close()
}

func newServer(opts options, notes *witness.Log) (server, error) {
	switch opts.name {
	case "front":
		trusted, err := trust(opts.ca)
		if err != nil {
			return nil, err
		}
		return overHTTP(newFront(notes, opts.next, trusted), opts), nil
	case "gateway":
		trusted, err := trust(opts.ca)
		if err != nil {
			return nil, err
		}
		gateway, err := newGateway(notes, opts.next, trusted)
		return overHTTP(gateway, opts), err
	case "unary":
		unary, err := newUnary(notes, opts.next)
		if err != nil {
			return nil, err
		}
		return overGRPC(unary, opts)
	case "stream":
		return overGRPC(newStream(notes, opts.next), opts)
	case "back":
		return overHTTP(newBack(notes), opts), nil
	default:
		return nil, fmt.Errorf("no service has the name %q", opts.name)
	}
}

// trust makes what clients need to know of the certificate authority.
func trust(ca string) (*tls.Config, error) {
	content, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("no certificate in %s", ca)
	}
	return &tls.Config{RootCAs: roots}, nil
}

type httpServer struct {
	*http.Server
	cert, key string
}

// overHTTP serves HTTP/1.1, or over TLS, where a certificate is given, HTTP/2.
func overHTTP(handler http.Handler, opts options) server {
	server := &http.Server{Handler: handler, ErrorLog: complaints.Log(opts.name + ": ")}
	limitFrames(server)
	return httpServer{server, opts.cert, opts.key}
}

func (s httpServer) serve(listener net.Listener) error {
	if s.cert != "" {
		return s.ServeTLS(listener, s.cert, s.key)
	}
	return s.Serve(listener)
}

func (s httpServer) shutdown(ctx context.Context) error { return s.Shutdown(ctx) }

type grpcServer struct{ *grpc.Server }

func overGRPC(service rpc.Server, opts options) (server, error) {
	settings, err := serverOptions(opts.cert, opts.key)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(settings...)
	server.RegisterService(&rpc.Description, service)
	return grpcServer{server}, nil
}

func (s grpcServer) serve(listener net.Listener) error { return s.Serve(listener) }

func (s grpcServer) shutdown(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.GracefulStop()
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
