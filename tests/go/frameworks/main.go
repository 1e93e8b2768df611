// Command frameworks serves and calls through the libraries that Go services are built with: a
// server and a client for each, all in one process. As "driver" it calls the "service", whose
// servers make one call each, by the same library, to the "sink". Each process writes down what it
// received.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
)

// framework is one way to serve and to call.
type framework struct {
	name string
	// protocol is what a tracer calls it.
	protocol string
	// serve serves until the process ends, and lets `receive` handle what comes.
	serve func(listener net.Listener, tls *certificates, receive receiver) error
	// client makes a function that calls what `serve` serves at an address. `traceparent`, where it is
	// not empty, is sent along.
	client func(address string, tls *certificates) (caller, error)
}

// receiver notes a request and, in the service, makes the call that it leads to.
type receiver func(ctx context.Context, request received) error

// caller makes one call. Its answer must be the id.
type caller func(ctx context.Context, id int, traceparent string) error

// received is a request as a server sees it. Route is the pattern, as far as the framework tells.
type received struct {
	ID          string
	Route       string
	Traceparent []string
}

func main() {
	name := flag.String("name", "", "driver, service or sink")
	path := flag.String("witness", "", "file for the witness's lines of JSON")
	cert := flag.String("cert", "", "certificate of the servers")
	key := flag.String("key", "", "private key of -cert")
	ca := flag.String("ca", "", "certificate authority to trust in calls")
	next := flag.String("next", "", "addresses of the next process, as it has printed them")
	count := flag.Int("n", 100, "number of calls of each framework")
	concurrency := flag.Int("concurrency", 16, "how many calls at a time")
	flag.Parse()
	log.SetPrefix(*name + ": ")

	tls := &certificates{*cert, *key, *ca}
	var err error
	if *name == "driver" {
		err = drive(*next, tls, *count, *concurrency)
	} else {
		err = serve(*name, *path, *next, tls)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve serves by all frameworks until SIGTERM.
func serve(name, path, next string, tls *certificates) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	notes, err := openWitness(name, path)
	if err != nil {
		return err
	}
	callers, err := newCallers(next, tls)
	if err != nil {
		return err
	}
	addresses := map[string]string{}
	for i := range frameworks {
		f := frameworks[i]
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addresses[f.name] = listener.Addr().String()
		receive := func(ctx context.Context, request received) error {
			id, err := notes.note(f, request)
			if err != nil || callers[f.name] == nil {
				return err
			}
			return callers[f.name](ctx, id, "")
		}
		serveIt := f.serve
		if f.name == "reverseproxy" && next != "" {
			serveIt = serveProxy(notes, f, next)
		}
		go func() {
			if err := serveIt(listener, tls, receive); err != nil {
				log.Fatalf("%s: %v", f.name, err)
			}
		}()
	}
	line, err := json.Marshal(addresses)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	<-ctx.Done()
	return notes.close()
}

// newCallers makes the client of each framework; none without addresses.
func newCallers(next string, tls *certificates) (map[string]caller, error) {
	callers := map[string]caller{}
	if next == "" {
		return callers, nil
	}
	addresses, err := parse(next)
	if err != nil {
		return nil, err
	}
	for _, f := range frameworks {
		callers[f.name], err = f.client(addresses[f.name], tls)
		if err != nil {
			return nil, err
		}
	}
	return callers, nil
}

func parse(next string) (map[string]string, error) {
	var addresses map[string]string
	err := json.Unmarshal([]byte(next), &addresses)
	return addresses, err
}

// drive calls each framework `count` times; four of five calls have a traceparent.
func drive(next string, tls *certificates, count, concurrency int) error {
	callers, err := newCallers(next, tls)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var line string
	if _, err := fmt.Scanln(&line); err != nil || line != "go" {
		return fmt.Errorf("read %q instead of go: %v", line, err)
	}
	var failed int64
	var workers sync.WaitGroup
	jobs := make(chan func() error)
	for i := 0; i < concurrency; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for job := range jobs {
				if err := job(); err != nil && atomic.AddInt64(&failed, 1) <= 20 {
					log.Print(err)
				}
			}
		}()
	}
	for id := 0; id < count; id++ {
		for i := range frameworks {
			id, name := id, frameworks[i].name
			jobs <- func() error {
				if err := callers[name](context.Background(), id, incoming(name, id)); err != nil {
					return fmt.Errorf("%s, call %d: %w", name, id, err)
				}
				return nil
			}
		}
	}
	close(jobs)
	workers.Wait()
	fmt.Printf("{\"calls\": %d, \"failed\": %d}\n", count*len(frameworks), failed)
	return nil
}
