//go:build go1.24

package main

import (
	"log"
	"net"
	"net/http"
)

// unencrypted is net/http's own HTTP/2 without TLS, which came with Go 1.24.
var unencrypted = []framework{{"h2c", "http/2", serveUnencrypted, unencryptedClient}}

func onlyHTTP2() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return protocols
}

func serveUnencrypted(listener net.Listener, _ *certificates, receive receiver) error {
	server := &http.Server{
		Handler: serveMux(receive), Protocols: onlyHTTP2(), ErrorLog: log.New(complaints{}, "", 0),
	}
	return server.Serve(listener)
}

func unencryptedClient(address string, _ *certificates) (caller, error) {
	transport := &http.Transport{Protocols: onlyHTTP2()}
	return calling(&http.Client{Transport: transport}, "http://"+address), nil
}
