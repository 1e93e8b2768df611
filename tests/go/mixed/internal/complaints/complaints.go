// Package complaints is for what net/http's servers write to standard error, where tests look for
// anything unusual.
package complaints

import (
	"bytes"
	"log"
	"os"
)

// harmless is what a server says of connections that its client closed without using them: while
// there is no HTTP/2 connection yet, net/http dials one for each request that waits, keeps the first.
var harmless = [][]byte{[]byte("TLS handshake error"), []byte("error reading preface from client")}

// Log is a server's ErrorLog without what is harmless.
func Log(prefix string) *log.Logger {
	return log.New(filter{}, prefix, log.LstdFlags)
}

type filter struct{}

func (filter) Write(line []byte) (int, error) {
	for _, text := range harmless {
		if bytes.Contains(line, text) {
			return len(line), nil
		}
	}
	return os.Stderr.Write(line)
}
