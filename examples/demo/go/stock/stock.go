// Package stock is the gRPC service that says how many pieces there are, written by hand: what protoc
// would make of
//
//	service Stock { rpc Pieces (google.protobuf.StringValue) returns (google.protobuf.Int32Value); }
package stock

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Server answers requests.
type Server interface {
	Pieces(ctx context.Context, id string) (int32, error)
}

const pieces = "/shop.Stock/Pieces"

// Register adds the service to a gRPC server.
func Register(registrar grpc.ServiceRegistrar, server Server) {
	registrar.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.Stock",
		HandlerType: (*Server)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Pieces", Handler: handle}},
	}, server)
}

func handle(
	server any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor,
) (any, error) {
	id := new(wrapperspb.StringValue)
	if err := decode(id); err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, request any) (any, error) {
		count, err := server.(Server).Pieces(ctx, request.(*wrapperspb.StringValue).Value)
		return wrapperspb.Int32(count), err
	}
	if interceptor == nil {
		return answer(ctx, id)
	}
	return interceptor(ctx, id, &grpc.UnaryServerInfo{Server: server, FullMethod: pieces}, answer)
}

// Pieces asks a server.
func Pieces(ctx context.Context, conn grpc.ClientConnInterface, id string) (int, error) {
	count := new(wrapperspb.Int32Value)
	err := conn.Invoke(ctx, pieces, wrapperspb.String(id), count)
	return int(count.Value), err
}
