// Command back is the stock service: shop.Stock/Pieces over gRPC. It asks the depot over plain HTTP.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"shop/stock"
)

type service struct {
	depot string // base URL
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	depot := flag.String("depot", "", "base URL of the depot")
	flag.Parse()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	stock.Register(server, &service{depot: *depot})
	fmt.Println(listener.Addr())
	log.Fatal(server.Serve(listener))
}

// Pieces calls http.Get, which takes no context: nothing here hands the trace on.
func (s *service) Pieces(_ context.Context, id string) (int32, error) {
	time.Sleep(2 * time.Millisecond) // look into the books
	response, err := http.Get(s.depot + "/shelf/" + id)
	if err != nil {
		return 0, status.Error(codes.Unavailable, err.Error())
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, status.Error(codes.Internal, response.Status)
	}
	var answer struct {
		Pieces int32 `json:"pieces"`
	}
	err = json.NewDecoder(response.Body).Decode(&answer)
	return answer.Pieces, err
}
