package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"mixed/internal/rpc"
	"mixed/internal/witness"
	"mixed/internal/work"
)

const (
	// connectionAge is after how long a server asks its clients, by GOAWAY, for a new connection.
	connectionAge = 3 * time.Second
	// connectionGrace is how long calls in flight may then go on; more than work.Deadline.
	connectionGrace = time.Minute
	// maxMetadata, in bytes, is beyond all that the chain sends; grpc's own limits vary by version.
	maxMetadata = 1 << 20
)

func serverOptions(cert, key string) ([]grpc.ServerOption, error) {
	settings := []grpc.ServerOption{
		grpc.ForceServerCodec(rpc.Codec{}),
		grpc.MaxHeaderListSize(maxMetadata),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: connectionGrace,
		}),
	}
	if cert != "" {
		secure, err := credentials.NewServerTLSFromFile(cert, key)
		if err != nil {
			return nil, err
		}
		settings = append(settings, grpc.Creds(secure))
	}
	return settings, nil
}

// dial makes the one connection of a service that calls by grpc; plaintext without credentials.
// The service's interceptors set the metadata of each call.
func dial(service, next string, secure credentials.TransportCredentials) (*grpc.ClientConn, error) {
	if secure == nil {
		secure = insecure.NewCredentials()
	}
	unary := func(
		ctx context.Context, method string, request, reply interface{},
		conn *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		ctx, opts = outgoing(ctx, service, opts)
		return invoker(ctx, method, request, reply, conn, opts...)
	}
	stream := func(
		ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn,
		method string, streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		ctx, opts = outgoing(ctx, service, opts)
		return streamer(ctx, desc, conn, method, opts...)
	}
	// grpc.NewClient takes its place in later programs, but came with grpc 1.63 only.
	return grpc.Dial(
		next,
		grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rpc.Codec{})),
		grpc.WithMaxHeaderListSize(maxMetadata),
		grpc.WithUnaryInterceptor(unary),
		grpc.WithStreamInterceptor(stream),
	)
}

// call is what the interceptors have to know; it travels in the context.
type call struct {
	item     work.Item
	received []string // the traceparents that came in
}

type callKey struct{}

// outgoing sets the metadata that the item's kind asks for. grpc sends credentials first, then the
// metadata of NewOutgoingContext, a map, in any order, then what was appended, as it was.
func outgoing(ctx context.Context, service string, opts []grpc.CallOption) (context.Context, []grpc.CallOption) {
	call := ctx.Value(callKey{}).(call)
	item := call.item
	var pairs []string
	for _, field := range item.Fields() {
		pairs = append(pairs, field.Name, field.Value)
	}
	own := work.OwnTraceparent(service, item.ID)
	switch {
	case item.Kind == "ownfirst":
		ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("traceparent", own))
	case item.Kind == "ownmiddle":
		middle := len(pairs) / 4 * 2
		pairs = append(append(append([]string{}, pairs[:middle]...), "traceparent", own), pairs[middle:]...)
	case item.Kind == "ownlast":
		pairs = append(pairs, "Traceparent", own) // grpc writes all names in lower case
	case item.Kind == "owncreds":
		opts = append(opts, grpc.PerRPCCredentials(ownCredentials{own}))
	case item.Kind == "proxy" && len(call.received) > 0:
		md := metadata.Pairs("forwarded-for", service)
		md["traceparent"] = call.received
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, rpc.ItemFields(item)...)
	return metadata.AppendToOutgoingContext(ctx, pairs...), opts
}

// ownCredentials are per-call credentials that consist of a traceparent.
type ownCredentials struct{ traceparent string }

func (c ownCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"traceparent": c.traceparent}, nil
}

func (ownCredentials) RequireTransportSecurity() bool { return false }

// receive lets a handler answer a call that the witness has seen.
func receive(
	ctx context.Context, notes *witness.Log, answer func(item work.Item, received []string) error,
) error {
	item, md, err := rpc.FromIncoming(ctx)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	method, _ := grpc.Method(ctx)
	record := notes.Begin("received", item, "grpc", method)
	received := md.Get("traceparent")
	record.Traceparent = append(record.Traceparent, received...)
	if peer, ok := peer.FromContext(ctx); ok {
		record.Remote = peer.Addr.String()
	}
	if err = item.Check(md); err != nil {
		err = status.Error(codes.DataLoss, err.Error())
	} else {
		err = answer(item, received)
	}
	notes.End(record, int(status.Code(err)))
	return err
}
