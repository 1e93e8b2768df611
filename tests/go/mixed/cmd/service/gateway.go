package main

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"mixed/internal/rpc"
	"mixed/internal/witness"
	"mixed/internal/work"
)

// closeEvery says how often the gateway asks for a new connection: net/http's HTTP/2 server
// answers a handler's "Connection: close" with GOAWAY.
const closeEvery = 211

// gateway takes HTTP/2 over TLS and calls by unary grpc over TLS.
type gateway struct {
	workers
	conn  *grpc.ClientConn
	notes *witness.Log
}

func newGateway(notes *witness.Log, next string, trusted *tls.Config) (http.Handler, error) {
	conn, err := dial("gateway", next, credentials.NewTLS(trusted))
	if err != nil {
		return nil, err
	}
	g := &gateway{newWorkers(), conn, notes}
	return witnessed(notes, "http/2", g.answer), nil
}

func (g *gateway) answer(w http.ResponseWriter, r *http.Request, item work.Item) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = item.Check(r.Header)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply := new(rpc.Message)
	g.workers.call(r.Context(), item, func(ctx context.Context) {
		err = g.ask(ctx, call{item, r.Header.Values("Traceparent")}, &rpc.Message{Body: body}, reply)
	})
	if item.ID%closeEvery == closeEvery-1 {
		w.Header().Set("Connection", "close")
	}
	code, body := http.StatusOK, reply.Body
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(err.Error())
		switch status.Code(err) {
		case codes.FailedPrecondition:
			code, body = http.StatusConflict, []byte(status.Convert(err).Message())
		case codes.DeadlineExceeded:
			code, body = http.StatusGatewayTimeout, []byte(item.Failure()) // grpc's own message varies
		}
	}
	w.WriteHeader(code)
	if _, err := w.Write(body); err != nil && item.Kind != "h2cancel" {
		log.Print(err)
	}
	if item.Kind == "h2cancel" {
		w.(http.Flusher).Flush()
		waitForCancellation(r.Context())
	}
}

func (g *gateway) ask(ctx context.Context, call call, request, reply *rpc.Message) error {
	ctx = context.WithValue(ctx, callKey{}, call)
	if call.item.Kind == "deadline" {
		limited, cancel := context.WithTimeout(ctx, work.Deadline)
		defer cancel()
		ctx = limited
	}
	method := rpc.FullMethod("Unary")
	record := g.notes.Begin("called", call.item, "grpc", method)
	err := g.conn.Invoke(ctx, method, request, reply)
	g.notes.End(record, int(status.Code(err)))
	return err
}

// waitForCancellation waits until the client has given up, which it was to do at once.
func waitForCancellation(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Second):
		log.Print("the cancellation by the client does not arrive")
	}
}
