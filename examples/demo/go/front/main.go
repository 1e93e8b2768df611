// Command front is the service that customers talk to: GET /order/{id}. It asks the price
// service over HTTPS, which is HTTP/2, what the order costs.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

type order struct {
	ID    string  `json:"id"`
	Price float64 `json:"price"`
}

type shop struct {
	prices string // base URL of the price service
	client *http.Client
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	prices := flag.String("prices", "", "base URL of the price service")
	trust := flag.String("trust", "", "certificate of the price service")
	flag.Parse()

	client, err := newClient(*trust)
	if err != nil {
		log.Fatal(err)
	}
	service := &shop{prices: *prices, client: client}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /order/{id}", service.handleOrder)

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}

func newClient(trust string) (*http.Client, error) {
	certificate, err := os.ReadFile(trust)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(certificate) {
		return nil, fmt.Errorf("no certificate in %s", trust)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}, nil
}

func (s *shop) handleOrder(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	time.Sleep(3 * time.Millisecond) // look up the customer
	price, err := s.price(r.Context(), id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	time.Sleep(2 * time.Millisecond) // write the order down
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(order{ID: id, Price: price})
}

func (s *shop) price(ctx context.Context, id string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.prices+"/price/"+id, nil)
	if err != nil {
		return 0, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("price service: %s", response.Status)
	}
	var answer struct {
		Price float64 `json:"price"`
	}
	err = json.NewDecoder(response.Body).Decode(&answer)
	return answer.Price, err
}
