// Command middle is the price service: GET /price/{id} over HTTPS. The price depends on how
// many pieces are in stock, which it asks the stock service over gRPC.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"shop/stock"
)

type price struct {
	ID    string  `json:"id"`
	Price float64 `json:"price"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	address := flag.String("stock", "", "address of the stock service")
	certificateOut := flag.String("certificate-out", "", "where to write our certificate, for clients to trust")
	flag.Parse()

	certificate, err := selfSigned(*certificateOut)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /price/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		time.Sleep(2 * time.Millisecond) // look into the price list
		pieces, err := stock.Pieces(r.Context(), conn, id)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(price{ID: id, Price: 10 + 90/float64(1+pieces)})
	})
	server := &http.Server{
		Handler:   mux,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(server.ServeTLS(listener, "", ""))
}

// selfSigned makes a certificate for 127.0.0.1 and writes its public part to a file.
func selfSigned(out string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	content, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: content})
	if err := os.WriteFile(out, public, 0o644); err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{content}, PrivateKey: key}, nil
}
