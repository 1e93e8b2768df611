package main

import (
	"io"
	"log"
	"net/http"

	"mixed/internal/witness"
	"mixed/internal/work"
)

// newBack makes the last service: it takes HTTP/1.1 and calls nobody.
func newBack(notes *witness.Log) http.Handler {
	return witnessed(notes, "http/1.1", func(w http.ResponseWriter, r *http.Request, item work.Item) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = item.Check(r.Header)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if _, err := w.Write(item.FullAnswer(body)); err != nil {
			log.Print(err)
		}
	})
}
