/*
 * Many distinct call stacks: stack number i turns left or right at each of 20 calls, by the bits
 * of i. Build with -fno-omit-frame-pointer.
 *
 * Usage: stacks COUNT SECONDS [FIRST]   walks through stacks FIRST … FIRST + COUNT - 1, in turns,
 * for SECONDS of its own CPU time
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define DEPTH 20

static volatile uint64_t sink = 1;

/* About 50 µs: half the time between two samples at 10,000 Hz. */
__attribute__((noinline)) static void leaf(void)
{
	uint64_t x = sink;

	for (int i = 0; i < 25000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	sink = x;
}

static void descend(uint32_t path, int depth);

/* What follows the call keeps it from becoming a jump, which would leave no frame. */
__attribute__((noinline)) static void left(uint32_t path, int depth)
{
	descend(path, depth);
	sink ^= 1;
}

__attribute__((noinline)) static void right(uint32_t path, int depth)
{
	descend(path, depth);
	sink ^= 2;
}

__attribute__((noinline)) static void descend(uint32_t path, int depth)
{
	if (depth == 0)
		leaf();
	else if (path & 1)
		right(path >> 1, depth - 1);
	else
		left(path >> 1, depth - 1);
	sink ^= 4;
}

/* Its own CPU time, in seconds: beside other work, it does as much as alone. */
static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	uint32_t count = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;
	double end = cpu_time() + (argc > 2 ? atof(argv[2]) : 1);
	uint32_t first = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;

	if (count == 0)
		return 2;
	for (uint32_t i = 0; cpu_time() < end; i = (i + 1) % count)
		descend(first + i, DEPTH);
	return 0;
}
