// Command offsets prints where the compiler puts exported fields: the truth that reading an
// executable is held against.
package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"unsafe"
)

func main() {
	var request http.Request
	var address url.URL
	var response http.Response
	var end net.TCPAddr
	fmt.Println("request_method", unsafe.Offsetof(request.Method))
	fmt.Println("request_url", unsafe.Offsetof(request.URL))
	fmt.Println("request_header", unsafe.Offsetof(request.Header))
	fmt.Println("request_host", unsafe.Offsetof(request.Host))
	fmt.Println("url_path", unsafe.Offsetof(address.Path))
	fmt.Println("url_host", unsafe.Offsetof(address.Host))
	fmt.Println("client_response_status", unsafe.Offsetof(response.StatusCode))
	fmt.Println("client_response_proto_major", unsafe.Offsetof(response.ProtoMajor))
	fmt.Println("tcp_addr_ip", unsafe.Offsetof(end.IP))
	fmt.Println("tcp_addr_port", unsafe.Offsetof(end.Port))
}
