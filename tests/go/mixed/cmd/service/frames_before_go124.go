//go:build !go1.24

package main

import "net/http"

// limitFrames does nothing: only golang.org/x/net/http2 could set the limit before Go 1.24.
func limitFrames(*http.Server) {}
