//go:build go1.24

package main

import "net/http"

// limitFrames makes a server take only frames as small as HTTP/2 allows: net/http's own limit, 1 MiB,
// would let clients send all of our headers in one frame, without CONTINUATION.
func limitFrames(server *http.Server) {
	server.HTTP2 = &http.HTTP2Config{MaxReadFrameSize: 16 << 10}
}
