package main

import (
	"context"
	"time"

	"mixed/internal/work"
)

// workers are goroutines that were there before any request came, so that nothing but the context
// tells to whom a call belongs that they make.
type workers chan func()

func newWorkers() workers {
	jobs := make(workers)
	for i := 0; i < 64; i++ {
		go func() {
			for job := range jobs {
				job()
			}
		}()
	}
	return jobs
}

// call makes an outgoing call in the way that the item's mode asks for, and waits for its end.
func (w workers) call(ctx context.Context, item work.Item, call func(ctx context.Context)) {
	switch item.Mode {
	case "nocontext":
		call(context.Background())
	case "goroutine":
		w.callElsewhere(ctx, item, call)
	default:
		call(ctx)
	}
}

// callElsewhere lets another goroutine make the call, with a context built on the request's own.
// Half of the calls get a new goroutine, the others go to the workers.
func (w workers) callElsewhere(ctx context.Context, item work.Item, call func(ctx context.Context)) {
	type key struct{}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, key{}, item.ID), time.Minute)
	defer cancel()
	done := make(chan struct{})
	job := func() {
		defer close(done)
		call(ctx)
	}
	if item.ID/2%2 == 0 {
		go job()
	} else {
		w <- job
	}
	<-done
}
