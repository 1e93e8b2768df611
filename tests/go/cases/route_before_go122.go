//go:build !go1.22

package main

import (
	"net/http"
	"strings"
)

const callRoute = "/call/"

func callKind(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, callRoute) }
