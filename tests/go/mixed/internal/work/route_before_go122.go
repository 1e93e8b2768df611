//go:build !go1.22

package work

// Route is where the HTTP services handle their requests: patterns have no wildcards yet.
const Route = "/work/"
