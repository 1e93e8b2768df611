// Command hammer mixes protocols in one process: it makes many calls by HTTP/1.1, HTTPS, HTTP/2 and
// grpc from many goroutines, while it serves all of them itself. A third of the calls go to its own
// servers, which make one call each to the receiver; the others go to the receiver at once. The
// receiver is the same program with -receive, in a process of its own. Both write down as a
// witness what they received.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"mixed/internal/witness"
)

func main() {
	receive := flag.Bool("receive", false, "be the receiver: print the addresses, serve until SIGTERM")
	name := flag.String("name", "hammer", "what the witness calls this process")
	notes := flag.String("witness", "", "file for the witness's lines of JSON")
	cert := flag.String("cert", "", "certificate of the servers")
	key := flag.String("key", "", "private key of -cert")
	ca := flag.String("ca", "", "certificate authority to trust in calls")
	next := flag.String("next", "", "addresses of the receiver, as it has printed them")
	count := flag.Int("n", 1000, "number of calls; their ids are 0 to n-1")
	concurrency := flag.Int("concurrency", 64, "how many calls at a time")
	using := flag.String("protocols", strings.Join(protocols, ","), "which protocols to call by")
	direct := flag.Bool("direct", false, "make all calls to the receiver at once")
	flag.Parse()
	log.SetPrefix(*name + ": ")

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *receive, *name, *notes, *cert, *key, func(servers *servers, notes *witness.Log) error {
		var addresses map[string]string
		if err := json.Unmarshal([]byte(*next), &addresses); err != nil {
			return err
		}
		receiver, err := newClients(addresses, *ca)
		if err != nil {
			return err
		}
		own, err := newClients(servers.addresses, *ca)
		if err != nil {
			return err
		}
		h := &hammer{strings.Split(*using, ","), own, receiver, notes, *direct}
		servers.passOn(h.serve)
		// Whoever traces us attaches when it has read the addresses, and then says go.
		var line string
		if _, err := fmt.Scanln(&line); err != nil || line != "go" {
			return fmt.Errorf("read %q instead of go: %v", line, err)
		}
		return h.strike(ctx, *count, *concurrency)
	}); err != nil {
		log.Fatal(err)
	}
}

// run serves all protocols, does the work meanwhile, and makes the witness complete.
func run(
	ctx context.Context, receive bool, name, path, cert, key string, work func(*servers, *witness.Log) error,
) error {
	notes, err := witness.Open(name, path)
	if err != nil {
		return err
	}
	servers, err := listen(notes, cert, key)
	if err != nil {
		return err
	}
	line, err := json.Marshal(servers.addresses)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	if receive {
		<-ctx.Done()
	} else if err := work(servers, notes); err != nil {
		return err
	}
	servers.stop()
	return notes.Close()
}
