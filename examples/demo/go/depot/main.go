// Command depot is where the pieces lie: GET /shelf/{id} over plain HTTP says how many there are.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"log"
	"net"
	"net/http"
	"time"
)

type shelf struct {
	ID     string `json:"id"`
	Pieces uint32 `json:"pieces"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /shelf/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		time.Sleep(4 * time.Millisecond) // count the pieces
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(shelf{ID: id, Pieces: crc32.ChecksumIEEE([]byte(id)) % 20})
	})

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}
