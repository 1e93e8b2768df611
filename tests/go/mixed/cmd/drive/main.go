// Command drive sends requests to the front of the mixed chain and checks every answer against
// what is known beforehand. It writes one JSON line per request to a file, a one-line summary
// to standard output, and ends with status 1 if any request failed.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"os"
	"sync"
	"time"

	"mixed/internal/work"
)

// Record is what was sent and what came of it. Traceparent is null where none was sent.
type Record struct {
	ID          int     `json:"id"`
	Mode        string  `json:"mode"`
	Kind        string  `json:"kind"`
	Stream      string  `json:"stream"` // the streaming method that it leads to
	Traceparent *string `json:"traceparent"`
	Status      int     `json:"status"`
	OK          bool    `json:"ok"`
	Error       string  `json:"error"`
}

// Summary is what the last line of output says.
type Summary struct {
	Requests int     `json:"requests"`
	Failed   int     `json:"failed"`
	Seconds  float64 `json:"seconds"`
	RPS      float64 `json:"rps"`
}

func main() {
	target := flag.String("url", "", "base URL of the front service")
	count := flag.Int("n", 1000, "number of requests; their ids are 0 to n-1")
	concurrency := flag.Int("concurrency", 16, "how many requests at a time")
	out := flag.String("out", "", "file for one JSON line per request")
	seed := flag.Int64("seed", 1, "decides the order in which the ids are sent")
	timeout := flag.Duration("timeout", 10*time.Minute, "no request is sent or waited for after this time")
	flag.Parse()

	summary, err := drive(*target, *count, *concurrency, *out, *seed, *timeout)
	if err != nil {
		log.Fatalf("drive: %v", err)
	}
	line, err := json.Marshal(summary)
	if err != nil {
		log.Fatalf("drive: %v", err)
	}
	fmt.Println(string(line))
	if summary.Failed > 0 {
		os.Exit(1)
	}
}

func drive(
	target string, count, concurrency int, out string, seed int64, timeout time.Duration,
) (Summary, error) {
	file, err := os.Create(out)
	if err != nil {
		return Summary{}, err
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()

	ids := make(chan int)
	go func() {
		defer close(ids)
		for _, id := range rand.New(rand.NewSource(seed)).Perm(count) {
			ids <- id
		}
	}()

	client := &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: concurrency},
		Timeout:   work.Deadline + 30*time.Second, // for one request
	}
	records := make(chan Record, concurrency)
	var senders sync.WaitGroup
	started := time.Now()
	for i := 0; i < concurrency; i++ {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for id := range ids {
				records <- send(ctx, client, target, work.ForID(id))
			}
		}()
	}
	go func() {
		senders.Wait()
		close(records)
	}()

	summary := Summary{}
	buffer := bufio.NewWriter(file)
	encoder := json.NewEncoder(buffer) // ends each record with a newline
	for record := range records {
		summary.Requests++
		if !record.OK {
			summary.Failed++
		}
		if err := encoder.Encode(record); err != nil {
			return summary, err
		}
	}
	summary.Seconds = time.Since(started).Seconds()
	summary.RPS = float64(summary.Requests) / summary.Seconds
	return summary, buffer.Flush()
}

// send makes one request and says whether the answer was the right one.
func send(ctx context.Context, client *http.Client, target string, item work.Item) Record {
	record := Record{ID: item.ID, Mode: item.Mode, Kind: item.Kind, Stream: item.Stream()}
	if value := work.IncomingTraceparent(item.ID); value != "" {
		record.Traceparent = &value
	}
	status, err := exchange(ctx, client, target, item)
	record.Status = status
	record.OK = err == nil
	if err != nil {
		record.Error = err.Error()
	}
	return record
}

func exchange(ctx context.Context, client *http.Client, target string, item work.Item) (int, error) {
	var content io.Reader
	if item.Method() == http.MethodPost {
		content = bytes.NewReader(item.RequestBody())
	}
	request, err := http.NewRequestWithContext(ctx, item.Method(), target+item.Path(), content)
	if err != nil {
		return 0, err
	}
	if value := work.IncomingTraceparent(item.ID); value != "" {
		request.Header.Set("traceparent", value)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return response.StatusCode, err
	}
	status, expected := item.Answer()
	switch {
	case response.StatusCode != status:
		return response.StatusCode, fmt.Errorf("status %d instead of %d: %.200q", response.StatusCode, status, body)
	case !bytes.Equal(body, expected):
		return response.StatusCode, fmt.Errorf("wrong body: %.200q instead of %.200q", body, expected)
	}
	return response.StatusCode, nil
}
