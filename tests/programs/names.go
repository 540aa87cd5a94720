// Functions whose names are asked for in a program without symbols: one that calls, one that is called, one
// that is inlined into it. Takes CPU seconds.
package main

import (
	"os"
	"strconv"
	"syscall"
)

var sink uint64

func inlinedOfGo(n uint64) uint64 { n ^= n << 13; n ^= n >> 7; n ^= n << 17; return n*n + sink } // inlined here

//go:noinline
func leafOfGo(n uint64) {
	for i := uint64(0); i < n; i++ {
		sink += inlinedOfGo(i) // called here
	}
}

//go:noinline
func middleOfGo() { leafOfGo(100000); sink++ }

func main() {
	seconds, _ := strconv.ParseFloat(os.Args[1], 64)
	var usage syscall.Rusage
	for {
		syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
		if float64(usage.Utime.Sec)+float64(usage.Utime.Usec)/1e6 >= seconds {
			return
		}
		middleOfGo()
	}
}
