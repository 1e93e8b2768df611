// Package witness writes down what a service received, as one line of JSON for each request.
// It is the truth that a tracer's records are compared with.
package witness

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"sync"
	"time"

	"chain/internal/work"
)

// Record is one received request. Traceparent holds every value of that header, in whatever
// letter case it came; an empty list means that there was none.
type Record struct {
	Service     string   `json:"service"`
	ID          int      `json:"id"`
	Mode        string   `json:"mode"`
	Kind        string   `json:"kind"`
	Method      string   `json:"method"`
	Traceparent []string `json:"traceparent"`
	Remote      string   `json:"remote"`
}

// Log collects records and writes them to its file every 100 ms, and when it is closed.
type Log struct {
	mu     sync.Mutex
	file   *os.File
	buffer *bufio.Writer
	done   chan struct{}
}

// Open creates the file, or empties it.
func Open(path string) (*Log, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	log := &Log{file: file, buffer: bufio.NewWriterSize(file, 64<<10), done: make(chan struct{})}
	go log.flushRegularly()
	return log, nil
}

// Note writes down one request.
func (log *Log) Note(service string, item work.Item, r *http.Request) error {
	record := Record{
		Service:     service,
		ID:          item.ID,
		Mode:        item.Mode,
		Kind:        item.Kind,
		Method:      r.Method,
		Traceparent: append([]string{}, r.Header.Values("Traceparent")...),
		Remote:      r.RemoteAddr,
	}
	line, err := json.Marshal(record)
	if err != nil {
		return err
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	_, err = log.buffer.Write(append(line, '\n'))
	return err
}

// Close writes what is left. No request may be noted afterwards.
func (log *Log) Close() error {
	close(log.done)
	log.mu.Lock()
	defer log.mu.Unlock()
	if err := log.buffer.Flush(); err != nil {
		return err
	}
	return log.file.Close()
}

func (log *Log) flushRegularly() {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-log.done:
			return
		case <-ticker.C:
			log.mu.Lock()
			log.buffer.Flush() // an error stays in the buffer and comes out of Note and Close
			log.mu.Unlock()
		}
	}
}
