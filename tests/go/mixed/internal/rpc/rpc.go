// Package rpc is the grpc service of the mixed chain, described by hand: its messages are plain
// bytes, so that it needs no generated code and builds with every version of grpc.
package rpc

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"mixed/internal/work"
)

// Service is the full name of the service.
const Service = "mixed.Work"

// Message is the only type of message.
type Message struct {
	Body []byte
}

// Codec carries messages as they are. It implements encoding.Codec, which all versions of grpc
// take (the later CodecV2 came with grpc 1.66).
type Codec struct{}

// Name becomes part of the content type.
func (Codec) Name() string { return "raw" }

// Marshal returns the bytes of a Message.
func (Codec) Marshal(v interface{}) ([]byte, error) {
	message, ok := v.(*Message)
	if !ok {
		return nil, fmt.Errorf("not a message: %T", v)
	}
	return message.Body, nil
}

// Unmarshal copies the bytes into a Message, as grpc may use them again.
func (Codec) Unmarshal(data []byte, v interface{}) error {
	message, ok := v.(*Message)
	if !ok {
		return fmt.Errorf("not a message: %T", v)
	}
	message.Body = append([]byte{}, data...)
	return nil
}

// Server serves both sorts of method.
type Server interface {
	Unary(ctx context.Context, request *Message) (*Message, error)
	Stream(stream grpc.ServerStream) error
}

// StreamDesc describes a streaming method by its name.
func StreamDesc(name string) *grpc.StreamDesc {
	for i := range Description.Streams {
		if Description.Streams[i].StreamName == name {
			return &Description.Streams[i]
		}
	}
	panic("no stream " + name)
}

// FullMethod is the name of a method as grpc sends it.
func FullMethod(name string) string {
	return "/" + Service + "/" + name
}

// Description is what protoc would have generated.
var Description = grpc.ServiceDesc{
	ServiceName: Service,
	HandlerType: (*Server)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: handleUnary}},
	Streams: []grpc.StreamDesc{
		{StreamName: "ClientStream", Handler: handleStream, ClientStreams: true},
		{StreamName: "ServerStream", Handler: handleStream, ServerStreams: true},
		{StreamName: "BidiStream", Handler: handleStream, ClientStreams: true, ServerStreams: true},
	},
}

func handleUnary(
	server interface{}, ctx context.Context, decode func(interface{}) error, interceptor grpc.UnaryServerInterceptor,
) (interface{}, error) {
	request := new(Message)
	if err := decode(request); err != nil {
		return nil, err
	}
	if interceptor == nil {
		return server.(Server).Unary(ctx, request)
	}
	info := &grpc.UnaryServerInfo{Server: server, FullMethod: FullMethod("Unary")}
	return interceptor(ctx, request, info, func(ctx context.Context, request interface{}) (interface{}, error) {
		return server.(Server).Unary(ctx, request.(*Message))
	})
}

func handleStream(server interface{}, stream grpc.ServerStream) error {
	return server.(Server).Stream(stream)
}

// ItemFields are the metadata that say which request a call belongs to.
func ItemFields(item work.Item) []string {
	return []string{"work-id", strconv.Itoa(item.ID), "work-mode", item.Mode, "work-kind", item.Kind}
}

// FromIncoming reads the item, and the metadata of the call, out of a server's context.
func FromIncoming(ctx context.Context) (work.Item, metadata.MD, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	only := func(name string) string {
		if values := md.Get(name); len(values) == 1 {
			return values[0]
		}
		return ""
	}
	item, err := work.Parse(only("work-id"), only("work-mode"), only("work-kind"))
	return item, md, err
}
