// Package work says what one request of the test chain is: its path, what is sent with it,
// and the only right answer to it. The driver and the services both compute these from the
// request's id, so that the driver can judge every answer by itself.
package work

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
)

// Modes say how a service makes its outgoing call.
var Modes = []string{
	"context",   // with the context of the request being served
	"nocontext", // without any context, like http.Get
	"goroutine", // in another goroutine, with the request's context
}

// Kinds say what is special about the request and about the calls it leads to.
var Kinds = []string{
	"get",      // a plain GET
	"head",     // HEAD: no body in the answer
	"range",    // GET with a Range header: 206 and a part of the answer
	"body",     // POST with a body: empty, small or about 100 KiB
	"shared",   // one http.Header map that is used by many requests at once
	"own",      // the service sets a traceparent header of its own
	"ownlower", // the same, by writing to h["traceparent"] directly
	"proxy",    // passed on by httputil.ReverseProxy
	"bighead",  // more than 30 header fields and more than 8 KiB of them
}

// Item is one request.
type Item struct {
	ID   int
	Mode string
	Kind string
}

// ForID spreads modes and kinds over the ids: 27 ids in a row hold every pair once.
func ForID(id int) Item {
	return Item{ID: id, Mode: Modes[id%len(Modes)], Kind: Kinds[id/len(Modes)%len(Kinds)]}
}

// FromRequest reads the item out of the path of a request that matched Route.
func FromRequest(r *http.Request) (Item, error) {
	number, mode, kind := pathValues(r)
	id, err := strconv.Atoi(number)
	if err != nil || id < 0 {
		return Item{}, fmt.Errorf("not an id: %q", number)
	}
	item := Item{ID: id, Mode: mode, Kind: kind}
	if !contains(Modes, item.Mode) || !contains(Kinds, item.Kind) {
		return Item{}, fmt.Errorf("unknown mode or kind: %s", r.URL.Path)
	}
	return item, nil
}

// Path is the item as the path of a URL.
func (item Item) Path() string {
	return fmt.Sprintf("/work/%d/%s/%s", item.ID, item.Mode, item.Kind)
}

// Method is the HTTP method of this item, the same all along the chain.
func (item Item) Method() string {
	switch item.Kind {
	case "head":
		return http.MethodHead
	case "body":
		return http.MethodPost
	default:
		return http.MethodGet
	}
}

// RequestBody is what a "body" item carries; nil for all others. Ids that differ in nothing
// else (see ForID) take turns between an empty, a small and a large body.
func (item Item) RequestBody() []byte {
	if item.Kind != "body" {
		return nil
	}
	sizes := []int{0, 37 + item.ID%50, 100<<10 + item.ID%1000}
	return filler(fmt.Sprintf("body:%d", item.ID), sizes[item.ID/27%len(sizes)])
}

// ByteRange is what a "range" item asks for: the first and last byte, both included.
func (item Item) ByteRange() (first, last int) {
	first = item.ID % 20
	return first, first + 10 + item.ID%7
}

// RangeHeader is ByteRange as the value of a Range header.
func (item Item) RangeHeader() string {
	first, last := item.ByteRange()
	return fmt.Sprintf("bytes=%d-%d", first, last)
}

// FullAnswer is the whole document that the last service of the chain has for this item,
// given the body that arrived there. It is at least 64 bytes long.
func (item Item) FullAnswer(received []byte) []byte {
	digest := sha256.Sum256(received)
	start := fmt.Sprintf("answer to %d %s, %d bytes received, sha256 %x\n",
		item.ID, item.Kind, len(received), digest)
	return append([]byte(start), filler("answer:"+start, item.ID*131%6000)...)
}

// Answer is what the client must get: status, body and the value of Content-Length.
func (item Item) Answer() (status int, body []byte, length int) {
	full := item.FullAnswer(item.RequestBody())
	switch item.Kind {
	case "head":
		return http.StatusOK, nil, len(full)
	case "range":
		first, last := item.ByteRange()
		return http.StatusPartialContent, full[first : last+1], last + 1 - first
	default:
		return http.StatusOK, full, len(full)
	}
}

// IncomingTraceparent is the header that the driver sends with an id; "" for one id in five.
func IncomingTraceparent(id int) string {
	if id%5 == 4 {
		return ""
	}
	return traceparent(fmt.Sprintf("in:%d", id))
}

// OwnTraceparent is the header that a service sets by itself for kinds "own" and "ownlower".
func OwnTraceparent(service string, id int) string {
	return traceparent(fmt.Sprintf("own:%s:%d", service, id))
}

// FillHeader is the many and long header fields of kind "bighead": 40 fields, 10 KiB.
func FillHeader(id int) http.Header {
	header := http.Header{}
	for n := 0; n < 40; n++ {
		header.Set(fmt.Sprintf("%s%02d", FillPrefix, n), string(filler(fmt.Sprintf("fill:%d:%d", id, n), 240)))
	}
	return header
}

// FillPrefix is how the names of all fields of FillHeader begin.
const FillPrefix = "Fill-"

// traceparent derives a sampled W3C traceparent: trace id and parent id from a sha256.
func traceparent(seed string) string {
	digest := sha256.Sum256([]byte(seed))
	return fmt.Sprintf("00-%x-%x-01", digest[:16], digest[16:24])
}

// filler is size bytes of hexadecimal text that depend on nothing but the seed.
func filler(seed string, size int) []byte {
	digest := sha256.Sum256([]byte(seed))
	text := []byte(hex.EncodeToString(digest[:]))
	return bytes.Repeat(text, size/len(text)+1)[:size]
}

func contains(list []string, wanted string) bool {
	for _, entry := range list {
		if entry == wanted {
			return true
		}
	}
	return false
}
