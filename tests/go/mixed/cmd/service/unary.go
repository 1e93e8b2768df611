package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"mixed/internal/rpc"
	"mixed/internal/witness"
	"mixed/internal/work"
)

// unary takes unary grpc over TLS and calls by streaming grpc in plaintext.
type unary struct {
	workers
	conn  *grpc.ClientConn
	notes *witness.Log
}

func newUnary(notes *witness.Log, next string) (*unary, error) {
	conn, err := dial("unary", next, nil)
	return &unary{newWorkers(), conn, notes}, err
}

// Stream is what this service does not have.
func (u *unary) Stream(grpc.ServerStream) error {
	return status.Error(codes.Unimplemented, "this service has no streams")
}

// Unary answers one call.
func (u *unary) Unary(ctx context.Context, request *rpc.Message) (*rpc.Message, error) {
	reply := new(rpc.Message)
	err := receive(ctx, u.notes, func(item work.Item, received []string) error {
		var err error
		u.workers.call(ctx, item, func(ctx context.Context) {
			reply.Body, err = u.ask(ctx, call{item, received}, request.Body)
		})
		if err == nil && item.Kind == "deadline" {
			waitForCancellation(ctx)
			err = status.FromContextError(ctx.Err()).Err()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// ask makes one streaming call, from beginning to end in this goroutine.
func (u *unary) ask(ctx context.Context, call call, body []byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, callKey{}, call))
	defer cancel()
	desc := rpc.StreamDesc(call.item.Stream())
	method := rpc.FullMethod(desc.StreamName)
	record := u.notes.Begin("called", call.item, "grpc", method)
	answer, err := u.exchange(ctx, cancel, desc, method, call.item, body)
	u.notes.End(record, int(status.Code(err)))
	if call.item.Kind == "cancel" && status.Code(err) == codes.Canceled {
		return answer, nil // as planned
	}
	return answer, err
}

func (u *unary) exchange(
	ctx context.Context, cancel func(), desc *grpc.StreamDesc, method string, item work.Item, body []byte,
) ([]byte, error) {
	stream, err := u.conn.NewStream(ctx, desc, method)
	if err != nil {
		return nil, err
	}
	if err := send(stream, desc, body); err != nil {
		return nil, err
	}
	var answer []byte
	for {
		var part rpc.Message
		err := stream.RecvMsg(&part)
		if errors.Is(err, io.EOF) {
			return answer, nil
		}
		if err != nil {
			return answer, err
		}
		answer = append(answer, part.Body...)
		if !desc.ServerStreams {
			return answer, nil
		}
		if item.Kind == "cancel" {
			cancel()
			return answer, drain(stream)
		}
	}
}

// send sends the body in one message or, where the client may stream, in three. To a bidirectional
// stream each is acknowledged before the next is sent.
func send(stream grpc.ClientStream, desc *grpc.StreamDesc, body []byte) error {
	parts := [][]byte{body}
	if desc.ClientStreams {
		third := len(body) / 3
		parts = [][]byte{body[:third], body[third : 2*third], body[2*third:]}
	}
	for _, part := range parts {
		if err := stream.SendMsg(&rpc.Message{Body: part}); err != nil {
			if errors.Is(err, io.EOF) {
				return drain(stream) // the stream has ended: receiving tells why
			}
			return err
		}
		if desc.ClientStreams && desc.ServerStreams {
			var acknowledged rpc.Message
			if err := stream.RecvMsg(&acknowledged); err != nil {
				return err
			}
			if string(acknowledged.Body) != acknowledgement(part) {
				return fmt.Errorf("acknowledged was %.50q", acknowledged.Body)
			}
		}
	}
	return stream.CloseSend()
}

// drain receives until the stream ends, and says how it did.
func drain(stream grpc.ClientStream) error {
	for {
		if err := stream.RecvMsg(new(rpc.Message)); err != nil {
			return err
		}
	}
}

func acknowledgement(part []byte) string {
	return fmt.Sprintf("%d bytes", len(part))
}
