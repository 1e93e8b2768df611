// Package work says what one request of the mixed chain is: its path, what is sent with it,
// and the only right answer to it. The driver and the services compute these from the request's
// id, so that each can judge by itself what arrives.
package work

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Modes say how a service makes its outgoing call.
var Modes = []string{
	"context",   // with the context of the request being served
	"nocontext", // with the empty context, in the goroutine that serves
	"goroutine", // in another goroutine, with the request's context
}

// Kinds say what is special about the request and about the calls it leads to.
var Kinds = []string{
	"get",       // nothing
	"body",      // a body: empty, small, about 20 KiB or about 90 KiB
	"ownfirst",  // each service sets a traceparent of its own, before its other metadata
	"ownmiddle", // the same, amid 20 other fields
	"ownlast",   // the same, after 40 other fields
	"owncreds",  // the same, by grpc's per-call credentials, which come before all metadata
	"proxy",     // each service passes on the traceparent that came in
	"meta4k",    // header blocks beyond 4 KiB
	"meta16k",   // header blocks beyond 16 KiB: HEADERS and CONTINUATION
	"edge",      // header blocks around the 16 KiB at which CONTINUATION becomes necessary
	"fail",      // the streaming call ends with status FAILED_PRECONDITION, as do those before it
	"cancel",    // the streaming call is cancelled by its client after the first message
	"h2cancel",  // the HTTP/2 request is cancelled by its client after the first bytes
	"deadline",  // the unary call runs into its deadline; rare, as it takes that long
}

const (
	// Cycle is after how many ids modes and kinds begin anew.
	Cycle = 3 * 14
	// Deadline is the time that a call of kind "deadline" has, enough for all calls it leads to.
	Deadline = 5 * time.Second
	// FirstPart is how much of an answer arrives before a call is cancelled, in bytes.
	FirstPart = 64
	// cyclesPerDeadline makes kind "deadline" rare; in all other cycles it is a plain "get".
	cyclesPerDeadline = 10
)

// Item is one request.
type Item struct {
	ID   int
	Mode string
	Kind string
}

// ForID spreads modes and kinds over the ids.
func ForID(id int) Item {
	kind := Kinds[id/len(Modes)%len(Kinds)]
	if kind == "deadline" && id/Cycle%cyclesPerDeadline != 0 {
		kind = "get"
	}
	return Item{ID: id, Mode: Modes[id%len(Modes)], Kind: kind}
}

// FromPath reads the item out of the path of a URL.
func FromPath(path string) (Item, error) {
	parts := strings.Split(path, "/")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "work" {
		return Item{}, fmt.Errorf("not the path of an item: %q", path)
	}
	return Parse(parts[2], parts[3], parts[4])
}

// Parse reads the item out of its parts.
func Parse(number, mode, kind string) (Item, error) {
	id, err := strconv.Atoi(number)
	if err != nil || id < 0 {
		return Item{}, fmt.Errorf("not an id: %q", number)
	}
	item := Item{ID: id, Mode: mode, Kind: kind}
	if item != ForID(id) {
		return Item{}, fmt.Errorf("%v is not item %d", item, id)
	}
	return item, nil
}

// Path is the item as the path of a URL: net/http's shortest functions cannot set headers.
func (item Item) Path() string {
	return fmt.Sprintf("/work/%d/%s/%s", item.ID, item.Mode, item.Kind)
}

// Method is the HTTP method of this item, the same on each HTTP connection.
func (item Item) Method() string {
	if item.Kind == "body" {
		return http.MethodPost
	}
	return http.MethodGet
}

// Own says whether each service sets a traceparent of its own.
func (item Item) Own() bool {
	return strings.HasPrefix(item.Kind, "own")
}

// Stream names the streaming method that this item calls; they take turns. A client can only
// know that its call has arrived, and cancel it then, if the server sends first.
func (item Item) Stream() string {
	streams := []string{"ClientStream", "ServerStream", "BidiStream"}
	name := streams[item.ID/Cycle%len(streams)]
	if item.Kind == "cancel" && name == "ClientStream" {
		return "ServerStream"
	}
	return name
}

// RequestBody is what the item carries; nil for all kinds but "body".
func (item Item) RequestBody() []byte {
	if item.Kind != "body" {
		return nil
	}
	sizes := []int{0, 37 + item.ID%50, 20<<10 + item.ID%1000, 90<<10 + item.ID%1000}
	return filler(fmt.Sprintf("body:%d", item.ID), sizes[item.ID/Cycle%len(sizes)])
}

// FullAnswer is what the last service of the chain answers, given the body that arrived there.
// It is longer than FirstPart.
func (item Item) FullAnswer(received []byte) []byte {
	digest := sha256.Sum256(received)
	start := fmt.Sprintf("answer to %d %s, %d bytes received, sha256 %x\n",
		item.ID, item.Kind, len(received), digest)
	return append([]byte(start), filler("answer:"+start, item.ID*131%6000)...)
}

// Failure is the message of the planned status of kinds "fail" and "deadline".
func (item Item) Failure() string {
	return fmt.Sprintf("request %d ends in %s as planned", item.ID, item.Kind)
}

// Answer is what the driver must get: status and body.
func (item Item) Answer() (status int, body []byte) {
	full := item.FullAnswer(item.RequestBody())
	switch item.Kind {
	case "fail":
		return http.StatusConflict, []byte(item.Failure())
	case "deadline":
		return http.StatusGatewayTimeout, []byte(item.Failure())
	case "cancel", "h2cancel":
		return http.StatusOK, full[:FirstPart]
	default:
		return http.StatusOK, full
	}
}

// Field is one additional header field or metadatum.
type Field struct {
	Name  string
	Value string
}

// Fields are what every hop sends along and every service checks. Huffman coding makes some
// 170 bytes out of 240.
func (item Item) Fields() []Field {
	var fields []Field
	add := func(count, size int) {
		for n := 0; n < count; n++ {
			seed := fmt.Sprintf("fill:%d:%d", item.ID, n)
			fields = append(fields, Field{fmt.Sprintf("fill-%03d", n), string(filler(seed, size))})
		}
	}
	switch item.Kind {
	case "ownmiddle":
		add(20, 16)
	case "ownlast":
		add(40, 16)
	case "meta4k":
		add(32, 240)
	case "meta16k":
		add(120, 240)
	case "edge":
		add(87, 240) // the last field leads to somewhere from 15.5 to 16.3 KiB, the others of a call to more
		seed := fmt.Sprintf("edge:%d", item.ID)
		fields = append(fields, Field{"fill-edge", string(filler(seed, 400+item.ID*37%1200))})
	}
	return fields
}

// Check says what is wrong with the fields that arrived.
func (item Item) Check(received map[string][]string) error {
	for _, field := range item.Fields() {
		values := received[field.Name]
		if values == nil {
			values = received[http.CanonicalHeaderKey(field.Name)]
		}
		if len(values) != 1 || values[0] != field.Value {
			return fmt.Errorf("field %s of request %d arrived as %.100q", field.Name, item.ID, values)
		}
	}
	return nil
}

// IncomingTraceparent is the header that the driver sends with an id; "" for one id in five.
func IncomingTraceparent(id int) string {
	if id%5 == 4 {
		return ""
	}
	return traceparent(fmt.Sprintf("in:%d", id))
}

// OwnTraceparent is what a service sets by itself for the kinds that begin with "own".
func OwnTraceparent(service string, id int) string {
	return traceparent(fmt.Sprintf("own:%s:%d", service, id))
}

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
