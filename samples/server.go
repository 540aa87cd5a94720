// A small web server and its clients in one process: JSON, gzip, SHA-256 and TCP over loopback.
// Go keeps frame pointers, so its stacks are whole; the picture in README is a recording of it.
//
// Usage: server SECONDS
package main

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"time"
)

type item struct {
	Name string
	Hash string
	Tags []string
}

func search(query string) []item {
	items := make([]item, 0, 200)
	for i := 0; i < cap(items); i++ {
		sum := sha256.Sum256([]byte(query + strconv.Itoa(i)))
		items = append(items, item{"item " + strconv.Itoa(i), hex.EncodeToString(sum[:]), []string{query, "b", "c"}})
	}
	sort.Slice(items, func(i, j int) bool { return items[i].Hash < items[j].Hash })
	return items
}

func handle(w http.ResponseWriter, r *http.Request) {
	zip := gzip.NewWriter(w)
	defer zip.Close()
	json.NewEncoder(zip).Encode(search(r.URL.Query().Get("q")))
}

func client(address string, end time.Time) {
	for n := 0; time.Now().Before(end); n++ {
		response, err := http.Get("http://" + address + "/?q=" + strconv.Itoa(n%100))
		if err != nil {
			continue
		}
		zip, err := gzip.NewReader(response.Body)
		if err == nil {
			var items []item
			json.NewDecoder(zip).Decode(&items)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

func main() {
	seconds := 1.0
	if len(os.Args) > 1 {
		seconds, _ = strconv.ParseFloat(os.Args[1], 64)
	}
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(handle))
	done := make(chan bool)
	for i := 0; i < 4; i++ {
		go func() { client(listener.Addr().String(), end); done <- true }()
	}
	for i := 0; i < 4; i++ {
		<-done
	}
}
