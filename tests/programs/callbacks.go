// Go that calls C that calls Go back, which calls C again, and so on; then it spins for so many milliseconds of CPU time
// of its thread, in Go or in C. Others run beside it, so that it is preempted.
//
// Usage: callbacks LEVELS go|c CPU_MS
package main

/*
#include <time.h>

extern void calledBack(int levels);

static volatile unsigned sink;

static double cpu_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static __attribute__((noinline)) void leaf_in_c(int ms)
{
	double end = cpu_ms() + ms;

	while (cpu_ms() < end)
		for (unsigned i = 0; i < 100000; i++)
			sink += i;
}

static __attribute__((noinline)) void calls_back(int levels)
{
	calledBack(levels);
	sink++;
}
*/
import "C"

import (
	"os"
	"runtime"
	"strconv"
)

var (
	inC  = os.Args[2] == "c"
	ms   = number(os.Args[3])
	sink uint32
)

func number(text string) C.int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return C.int(n)
}

//go:noinline
func leafInGo() {
	for end := C.cpu_ms() + C.double(ms); C.cpu_ms() < end; {
		for i := uint32(0); i < 100000; i++ {
			sink = sink*31 + i
		}
	}
}

//export calledBack
func calledBack(levels C.int) {
	callsC(levels - 1)
}

//go:noinline
func callsC(levels C.int) {
	switch {
	case levels > 0:
		C.calls_back(levels)
	case inC:
		C.leaf_in_c(ms)
	default:
		leafInGo()
	}
}

func main() {
	runtime.GOMAXPROCS(2)
	for i := 0; i < 2; i++ {
		go func() {
			for n := 0; ; n++ {
				_ = make([]byte, n&0xffff)
			}
		}()
	}
	callsC(number(os.Args[1]))
}
