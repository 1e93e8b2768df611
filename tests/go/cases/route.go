//go:build go1.22

package main

import "net/http"

const callRoute = "/call/{kind}"

func callKind(r *http.Request) string { return r.PathValue("kind") }
