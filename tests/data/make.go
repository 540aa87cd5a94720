// Makes cpu.pb.gz and heap.pb.gz with Go's own runtime/pprof: a foreign producer's files.
// go run make.go DIRECTORY
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sort"
	"time"
)

var sink uint64
var kept [][]byte

func mix(x uint64) uint64 { return x*6364136223846793005 + 1442695040888963407 }

//go:noinline
func hash(n int) uint64 {
	x := uint64(1)
	for i := 0; i < n; i++ {
		x ^= mix(x) >> 7 // mix is inlined
	}
	return x
}

//go:noinline
func sorted(n int) {
	values := make([]int, n)
	for i := range values {
		values[i] = int(hash(3)) ^ i*7919
	}
	sort.Slice(values, func(i, j int) bool { return values[i] < values[j] })
}

//go:noinline
func allocate() {
	for i := 0; i < 200; i++ {
		kept = append(kept, make([]byte, 64<<10))
	}
}

func main() {
	create := func(name string) *os.File {
		file, err := os.Create(filepath.Join(os.Args[1], name))
		if err != nil {
			panic(err)
		}
		return file
	}
	cpu := create("cpu.pb.gz")
	if err := pprof.StartCPUProfile(cpu); err != nil {
		panic(err)
	}
	for start := time.Now(); time.Since(start) < 2*time.Second; {
		pprof.Do(context.Background(), pprof.Labels("phase", "hash; 1"), func(context.Context) { sink += hash(100000) })
		pprof.Do(context.Background(), pprof.Labels("phase", "sort"), func(context.Context) { sorted(20000) })
		devNull, _ := os.Open("/dev/zero") // some time in the kernel
		buffer := make([]byte, 1<<20)
		devNull.Read(buffer)
		devNull.Close()
	}
	pprof.StopCPUProfile()
	cpu.Close()
	allocate()
	runtime.GC()
	heap := create("heap.pb.gz")
	if err := pprof.WriteHeapProfile(heap); err != nil {
		panic(err)
	}
	heap.Close()
	fmt.Println(sink, len(kept))
}
