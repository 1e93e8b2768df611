package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mixed/internal/witness"
	"mixed/internal/work"
)

// hammer makes the calls.
type hammer struct {
	protocols []string
	own       *clients // of the servers in this process
	receiver  *clients
	notes     *witness.Log
	direct    bool
}

// Summary is the last line of output.
type Summary struct {
	Calls   int     `json:"calls"`
	Failed  int64   `json:"failed"`
	Seconds float64 `json:"seconds"`
	RPS     float64 `json:"rps"`
}

// strike makes all calls: half of them in long-lived goroutines, half in one of their own. All of
// them use the same context, as calls that are nobody's do.
func (h *hammer) strike(ctx context.Context, count, concurrency int) error {
	ids := make(chan int)
	go func() {
		defer close(ids)
		for id := 0; id < count; id++ {
			ids <- id
		}
	}()
	var failed int64
	var workers sync.WaitGroup
	started := time.Now()
	for i := 0; i < concurrency; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for id := range ids {
				var err error
				if id%2 == 0 {
					err = h.begin(ctx, id)
				} else {
					done := make(chan error)
					go func(id int) { done <- h.begin(ctx, id) }(id)
					err = <-done
				}
				if err != nil && atomic.AddInt64(&failed, 1) <= 20 {
					fmt.Fprintf(os.Stderr, "call %d: %v\n", id, err)
				}
			}
		}()
	}
	workers.Wait()
	seconds := time.Since(started).Seconds()
	line, err := json.Marshal(Summary{count, failed, seconds, float64(count) / seconds})
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

// begin makes a call that belongs to no request.
func (h *hammer) begin(ctx context.Context, id int) error {
	protocol := h.protocols[id%len(h.protocols)]
	if h.direct || id%3 != 0 {
		return h.call(ctx, "begin", h.receiver, protocol, id)
	}
	return h.call(ctx, "begin", h.own, protocol, id)
}

// serve makes the call that a request leads to which this process serves.
func (h *hammer) serve(ctx context.Context, id int) error {
	return h.call(ctx, "serve", h.receiver, h.protocols[id/len(h.protocols)%len(h.protocols)], id)
}

func (h *hammer) call(ctx context.Context, from string, to *clients, protocol string, id int) error {
	record := h.notes.Begin("called", work.Item{ID: id, Mode: protocol, Kind: kindOf(id)}, traced[protocol], from)
	defer h.notes.End(record, 0)
	return to.call(ctx, protocol, id, ownOf(from, id))
}
