// CPU work over several functions and goroutines, with garbage, growing maps and growing stacks, so
// that the runtime works on the system's stack. Writes its own profile.
//
// Usage: work CPU_SECONDS PROFILE
package main

import (
	"crypto/sha256"
	"os"
	"runtime"
	"runtime/pprof"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"
)

type node struct {
	left, right *node
	values      []int
}

var kept [4][]*node

//go:noinline
func grow(depth int) *node {
	if depth == 0 {
		return &node{values: make([]int, 32)}
	}
	return &node{left: grow(depth - 1), right: grow(depth - 1)}
}

//go:noinline
func trees(id int) {
	kept[id] = append(kept[id], grow(12))
	if len(kept[id]) > 8 {
		kept[id] = kept[id][4:]
	}
}

//go:noinline
func words() int {
	counts := make(map[string]int)
	for i := 0; i < 4000; i++ {
		counts[strconv.Itoa(i*7919)] += i
	}
	return len(counts)
}

//go:noinline
func sorting() int {
	values := make([]int, 6000)
	for i := range values {
		values[i] = (i * 7919) % 6007
	}
	sort.Ints(values)
	return values[0]
}

//go:noinline
func hashing() (sum [32]byte) {
	for i := 0; i < 2000; i++ {
		sum = sha256.Sum256(sum[:])
	}
	return
}

//go:noinline
func deep(n int) int {
	var frame [64]int
	frame[n%64] = n
	if n == 0 {
		return frame[0]
	}
	return deep(n-1) + frame[n%64]
}

// A new goroutine has a small stack.
//
//go:noinline
func stacks() {
	var done sync.WaitGroup
	for i := 0; i < 20; i++ {
		done.Add(1)
		go func() { deep(100); done.Done() }()
	}
	done.Wait()
}

//go:noinline
func clocks() (sum int64) {
	for i := 0; i < 8000; i++ {
		sum += time.Now().UnixNano()
	}
	return
}

// Of all threads, in seconds: beside other work, the program does as much as alone.
func cpuTime() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func worker(id int, end float64, done *sync.WaitGroup) {
	defer done.Done()
	for cpuTime() < end {
		trees(id)
		words()
		sorting()
		hashing()
		stacks()
		clocks()
	}
}

func main() {
	seconds, _ := strconv.ParseFloat(os.Args[1], 64)
	file, err := os.Create(os.Args[2])
	if err != nil {
		panic(err)
	}
	// As often as the kernel's tick allows. Go keeps the rate that is set, and says so.
	runtime.SetCPUProfileRate(250)
	os.Stderr.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		panic(err)
	}
	var done sync.WaitGroup
	for id := range kept {
		done.Add(1)
		go worker(id, seconds, &done)
	}
	done.Wait()
	pprof.StopCPUProfile()
}
