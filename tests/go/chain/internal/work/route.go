//go:build go1.22

package work

import "net/http"

// Route is the pattern under which every service handles its requests. The id, mode and kind
// travel in the path because http.Get cannot set headers.
const Route = "/work/{id}/{mode}/{kind}"

func pathValues(r *http.Request) (id, mode, kind string) {
	return r.PathValue("id"), r.PathValue("mode"), r.PathValue("kind")
}
