//go:build !go1.24

package main

// unencrypted is empty: HTTP/2 without TLS takes golang.org/x/net/http2 so far.
var unencrypted []framework
