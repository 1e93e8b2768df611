// Command drive sends requests to the front of the test chain and checks every answer against
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

	"chain/internal/work"
)

// Record is what was sent and what came of it. Traceparent is null where none was sent.
type Record struct {
	ID          int     `json:"id"`
	Mode        string  `json:"mode"`
	Kind        string  `json:"kind"`
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
		Timeout:   30 * time.Second, // for one request
	}
	records := make(chan Record, concurrency)
	var workers sync.WaitGroup
	started := time.Now()
	for i := 0; i < concurrency; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for id := range ids {
				records <- send(ctx, client, target, work.ForID(id))
			}
		}()
	}
	go func() {
		workers.Wait()
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
	record := Record{ID: item.ID, Mode: item.Mode, Kind: item.Kind}
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
	request, err := newRequest(ctx, target, item)
	if err != nil {
		return 0, err
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

	status, expected, length := item.Answer()
	switch {
	case response.StatusCode != status:
		return response.StatusCode, fmt.Errorf("status %d instead of %d: %.200q", response.StatusCode, status, body)
	case response.ContentLength != int64(length):
		return response.StatusCode, fmt.Errorf("Content-Length %d instead of %d", response.ContentLength, length)
	case !bytes.Equal(body, expected):
		return response.StatusCode, fmt.Errorf("wrong body: %.200q instead of %.200q", body, expected)
	}
	return response.StatusCode, nil
}

func newRequest(ctx context.Context, target string, item work.Item) (*http.Request, error) {
	var body io.Reader
	if item.Kind == "body" {
		body = bytes.NewReader(item.RequestBody())
	}
	request, err := http.NewRequestWithContext(ctx, item.Method(), target+item.Path(), body)
	if err != nil {
		return nil, err
	}
	traceparent := work.IncomingTraceparent(item.ID)
	switch item.Kind {
	case "range":
		request.Header.Set("Range", item.RangeHeader())
	case "bighead":
		request.Header = work.FillHeader(item.ID)
		// With this one set, net/http adds nothing after our own fields, which it sorts by
		// name: the traceparent, in unusual letter case, is the last line of the header.
		request.Header.Set("Accept-Encoding", "identity")
		if traceparent != "" {
			spellings := []string{"TraceParent", "TRACEPARENT", "tRaCePaReNt", "traceparent"}
			request.Header[spellings[item.ID/27%len(spellings)]] = []string{traceparent}
			return request, nil
		}
	}
	if traceparent != "" {
		request.Header.Set("traceparent", traceparent)
	}
	return request, nil
}
