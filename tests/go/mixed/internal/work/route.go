//go:build go1.22

package work

// Route is the pattern under which the HTTP services handle their requests.
const Route = "/work/{id}/{mode}/{kind}"
