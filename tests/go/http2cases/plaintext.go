//go:build go1.24

package main

import (
	"context"
	"net/http"
	"net/http/httptest"
)

// ownPlaintext serves and calls HTTP/2 without TLS, by prior knowledge.
func ownPlaintext(mux *http.ServeMux) func(context.Context, string) outcome {
	var both, only http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	only.SetUnencryptedHTTP2(true)
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = &both
	server.Start()
	client := &http.Client{Transport: &http.Transport{Protocols: &only}}
	return func(ctx context.Context, path string) outcome {
		request, _ := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
		return outcomeOf(client.Do(request))
	}
}
