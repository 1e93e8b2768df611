// Package witness writes down what a service received and whom it called, as lines of JSON. It is
// the truth that a tracer's records are compared with, and knows nothing of the tracer.
package witness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"mixed/internal/work"
)

// Record is one request that was received (Event "received"), or one call that was made ("called").
// Traceparent holds every value of that header or metadatum; an empty list means that there was
// none. Goroutine is the one that served the request or made the call, the times are nanoseconds
// since 1970: together they tell which of a tracer's spans is meant. Status is an HTTP status or a
// grpc code.
type Record struct {
	Event       string   `json:"event"`
	Service     string   `json:"service"`
	ID          int      `json:"id"`
	Mode        string   `json:"mode"`
	Kind        string   `json:"kind"`
	Protocol    string   `json:"protocol"`
	Method      string   `json:"method"`
	Status      int      `json:"status"`
	Traceparent []string `json:"traceparent"`
	Remote      string   `json:"remote"`
	Goroutine   uint64   `json:"goroutine"`
	Start       int64    `json:"start_ns"`
	End         int64    `json:"end_ns"`
}

// Log collects records and writes them to its file every 100 ms, and when it is closed.
type Log struct {
	service string
	mu      sync.Mutex
	file    *os.File
	buffer  *bufio.Writer
	done    chan struct{}
}

// Open creates the file, or empties it.
func Open(service, path string) (*Log, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	log := &Log{service: service, file: file, buffer: bufio.NewWriterSize(file, 64<<10), done: make(chan struct{})}
	go log.flushRegularly()
	return log, nil
}

// Begin makes a record that begins now, in this goroutine.
func (log *Log) Begin(event string, item work.Item, protocol, method string) *Record {
	return &Record{
		Event:       event,
		Service:     log.service,
		ID:          item.ID,
		Mode:        item.Mode,
		Kind:        item.Kind,
		Protocol:    protocol,
		Method:      method,
		Traceparent: []string{},
		Goroutine:   goroutine(),
		Start:       time.Now().UnixNano(),
	}
}

// End writes a record down.
func (log *Log) End(record *Record, status int) {
	record.Status = status
	record.End = time.Now().UnixNano()
	line, err := json.Marshal(record)
	if err != nil {
		panic(err) // a Record can always be marshalled
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	log.buffer.Write(append(line, '\n')) // an error stays in the buffer and comes out of Close
}

// Close writes what is left. No record may be written afterwards.
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
			log.buffer.Flush()
			log.mu.Unlock()
		}
	}
}

// goroutine returns the number of this goroutine, which only the head of a stack trace tells.
func goroutine() uint64 {
	var stack [64]byte
	fields := bytes.Fields(stack[:runtime.Stack(stack[:], false)])
	number, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		panic(err) // "goroutine N [running]:" since Go 1
	}
	return number
}
