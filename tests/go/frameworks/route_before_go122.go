//go:build !go1.22

package main

// Patterns have no wildcards yet.
const callRoute = "/call/"
