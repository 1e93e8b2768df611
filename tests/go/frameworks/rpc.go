package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	service   = "frameworks.Calls"
	procedure = "/" + service + "/Call"
)

// message is the only type of message: the id of the call.
type message struct{ body string }

// codec carries messages as they are; both grpc and connect take it.
type codec struct{}

// Name becomes part of the content type.
func (codec) Name() string { return "raw" }

func (codec) Marshal(v interface{}) ([]byte, error) {
	if m, ok := v.(*message); ok {
		return []byte(m.body), nil
	}
	return nil, fmt.Errorf("not a message: %T", v)
}

func (codec) Unmarshal(data []byte, v interface{}) error {
	if m, ok := v.(*message); ok {
		m.body = string(data)
		return nil
	}
	return fmt.Errorf("not a message: %T", v)
}

type calls interface {
	call(ctx context.Context, request *message) (*message, error)
}

type grpcCalls struct{ receive receiver }

func (c grpcCalls) call(ctx context.Context, request *message) (*message, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if err := c.receive(ctx, received{request.body, procedure, md.Get("traceparent")}); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return request, nil
}

var description = grpc.ServiceDesc{
	ServiceName: service,
	HandlerType: (*calls)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(
		server interface{}, ctx context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor,
	) (interface{}, error) {
		request := new(message)
		if err := decode(request); err != nil {
			return nil, err
		}
		return server.(calls).call(ctx, request)
	}}},
}

func newGRPCServer(receive receiver, options ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append(options, grpc.ForceServerCodec(codec{}))...)
	server.RegisterService(&description, grpcCalls{receive})
	return server
}

// serveGRPC serves by grpc's own HTTP/2 server.
func serveGRPC(listener net.Listener, files *certificates, receive receiver) error {
	secure, err := credentials.NewServerTLSFromFile(files.cert, files.key)
	if err != nil {
		return err
	}
	return newGRPCServer(receive, grpc.Creds(secure)).Serve(listener)
}

// grpcHandler is grpc behind net/http: Server.ServeHTTP.
func grpcHandler(receive receiver) http.Handler {
	return newGRPCServer(receive)
}

func grpcClient(address string, files *certificates) (caller, error) {
	trusted, err := files.trusted()
	if err != nil {
		return nil, err
	}
	forced := grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}))
	conn, err := grpc.Dial(address, grpc.WithTransportCredentials(credentials.NewTLS(trusted)), forced)
	return func(ctx context.Context, id int, traceparent string) error {
		if traceparent != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", traceparent)
		}
		reply := new(message)
		if err := conn.Invoke(ctx, procedure, &message{strconv.Itoa(id)}, reply); err != nil {
			return err
		}
		return check(id, reply)
	}, err
}

func check(id int, reply *message) error {
	if reply.body != strconv.Itoa(id) {
		return fmt.Errorf("answered was %.200q", reply.body)
	}
	return nil
}

// connectHandler takes the protocols of Connect, grpc and grpc-web.
func connectHandler(receive receiver) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(procedure, connect.NewUnaryHandler(procedure,
		func(ctx context.Context, request *connect.Request[message]) (*connect.Response[message], error) {
			values := request.Header().Values("Traceparent")
			if err := receive(ctx, received{request.Msg.body, procedure, values}); err != nil {
				log.Print(err)
				return nil, connect.NewError(connect.CodeInternal, err)
			}
			return connect.NewResponse(request.Msg), nil
		}, connect.WithCodec(codec{})))
	return mux
}

var overGRPC = []connect.ClientOption{connect.WithGRPC()}

func connectClient(options ...connect.ClientOption) func(string, *certificates) (caller, error) {
	return func(address string, files *certificates) (caller, error) {
		trusted, err := files.trusted()
		transport := &http.Transport{TLSClientConfig: trusted, ForceAttemptHTTP2: true}
		options := append([]connect.ClientOption{connect.WithCodec(codec{})}, options...)
		client := connect.NewClient[message, message](
			&http.Client{Transport: transport}, "https://"+address+procedure, options...)
		return func(ctx context.Context, id int, traceparent string) error {
			request := connect.NewRequest(&message{strconv.Itoa(id)})
			if traceparent != "" {
				request.Header().Set("Traceparent", traceparent)
			}
			response, err := client.CallUnary(ctx, request)
			if err != nil {
				return err
			}
			return check(id, response.Msg)
		}, err
	}
}
