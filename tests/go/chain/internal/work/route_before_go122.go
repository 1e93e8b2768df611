//go:build !go1.22

package work

import (
	"net/http"
	"strings"
)

// Route is where every service handles its requests: patterns have no wildcards yet.
const Route = "/work/"

func pathValues(r *http.Request) (id, mode, kind string) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, Route), "/")
	if len(parts) != 3 {
		return "", "", ""
	}
	return parts[0], parts[1], parts[2]
}
