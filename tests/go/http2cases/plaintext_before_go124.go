//go:build !go1.24

package main

import (
	"context"
	"net/http"
)

func ownPlaintext(*http.ServeMux) func(context.Context, string) outcome { return nil }
