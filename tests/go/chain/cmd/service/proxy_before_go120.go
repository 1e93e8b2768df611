//go:build !go1.20

package main

import (
	"net/http/httputil"
	"net/url"
)

func newProxy(target *url.URL) *httputil.ReverseProxy {
	return httputil.NewSingleHostReverseProxy(target)
}
