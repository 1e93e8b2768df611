package main

import (
	"net/http"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

// frameworks are all that are served and called.
var frameworks = append([]framework{
	{"servemux", "http/1.1", servePlain(serveMux), plainClient},
	{"gin", "http/1.1", servePlain(ginHandler), plainClient},
	{"echo", "http/1.1", servePlain(echoHandler), plainClient},
	{"chi", "http/1.1", servePlain(chiHandler), plainClient},
	{"gorilla", "http/1.1", servePlain(gorillaHandler), plainClient},
	{"roundtripper", "http/2", serveTLS(serveMux), wrappedClient},
	{"reverseproxy", "http/2", serveTLS(serveMux), secureClient},
	{"x-net", "http/2", serveNetTLS, netClient},
	{"x-net-h2c", "http/2", servePlain(h2cHandler), h2cClient},
	{"connect", "http/2", serveTLS(connectHandler), connectClient()},
	{"connect-grpc", "http/2", serveTLS(connectHandler), connectClient(overGRPC...)},
	{"grpc", "grpc", serveGRPC, grpcClient},
	// net/http's HTTP/2 server in front of grpc's: a tracer sees either, or only the outer one.
	{"grpc-http", "grpc", serveTLS(grpcHandler), grpcClient},
}, unencrypted...)

func h2cHandler(receive receiver) http.Handler {
	return h2c.NewHandler(serveMux(receive), &http2.Server{})
}
