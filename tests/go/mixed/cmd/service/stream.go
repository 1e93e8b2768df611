package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"mixed/internal/rpc"
	"mixed/internal/witness"
	"mixed/internal/work"
)

// stream takes streaming grpc in plaintext and calls over HTTP/1.1.
type stream struct {
	httpCaller
	workers
}

func newStream(notes *witness.Log, next string) *stream {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	return &stream{httpCaller{"stream", "http://" + next, "http/1.1", client, notes}, newWorkers()}
}

// Unary is what this service does not have.
func (s *stream) Unary(context.Context, *rpc.Message) (*rpc.Message, error) {
	return nil, status.Error(codes.Unimplemented, "this service has streams only")
}

// Stream answers one call of any of the three streaming methods.
func (s *stream) Stream(stream grpc.ServerStream) error {
	ctx := stream.Context()
	return receive(ctx, s.notes, func(item work.Item, received []string) error {
		desc := rpc.StreamDesc(item.Stream())
		body, err := receiveAll(stream, desc)
		if err != nil {
			return err
		}
		var answer []byte
		s.workers.call(ctx, item, func(ctx context.Context) {
			answer, err = s.ask(ctx, item, received, body)
		})
		if err != nil {
			return err
		}
		if item.Kind == "fail" {
			return status.Error(codes.FailedPrecondition, item.Failure())
		}
		if !desc.ServerStreams {
			return stream.SendMsg(&rpc.Message{Body: answer})
		}
		if err := stream.SendMsg(&rpc.Message{Body: answer[:work.FirstPart]}); err != nil {
			return err
		}
		if item.Kind == "cancel" {
			waitForCancellation(ctx)
			return status.FromContextError(ctx.Err()).Err()
		}
		return stream.SendMsg(&rpc.Message{Body: answer[work.FirstPart:]})
	})
}

func receiveAll(stream grpc.ServerStream, desc *grpc.StreamDesc) ([]byte, error) {
	var body []byte
	for {
		var part rpc.Message
		err := stream.RecvMsg(&part)
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
		body = append(body, part.Body...)
		if desc.ClientStreams && desc.ServerStreams {
			if err := stream.SendMsg(&rpc.Message{Body: []byte(acknowledgement(part.Body))}); err != nil {
				return nil, err
			}
		}
	}
}

func (s *stream) ask(ctx context.Context, item work.Item, received []string, body []byte) ([]byte, error) {
	response, err := s.httpCaller.call(ctx, item, received, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("back answered %d: %.200q", response.StatusCode, answer)
	}
	return answer, err
}
