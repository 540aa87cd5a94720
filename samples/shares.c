/*
 * Known shares of CPU time: heavy 70 %, medium 20 %, light 10 %, whatever the compiler, the flags
 * and the speed of the machine, because the three differ in nothing but their number of rounds.
 *
 * Usage: shares SECONDS
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* Far less than the time between two samples, lest the two beat against each other. */
#define ROUNDS 1000

/* Each step needs the one before, so that no compiler makes the loop shorter. */
#define DEFINE_SPIN(name, rounds)                                                                  \
	__attribute__((noinline, aligned(64))) static uint64_t name(uint64_t x)                    \
	{                                                                                          \
		for (int i = 0; i < (rounds); i++) {                                               \
			x ^= x << 13;                                                              \
			x ^= x >> 7;                                                               \
			x ^= x << 17;                                                              \
		}                                                                                  \
		return x;                                                                          \
	}

DEFINE_SPIN(heavy, 70 * ROUNDS)
DEFINE_SPIN(medium, 20 * ROUNDS)
DEFINE_SPIN(light, 10 * ROUNDS)

/* The sum keeps the last call from becoming a jump, which would take this frame off the stack. */
__attribute__((noinline)) static uint64_t work(uint64_t x)
{
	return heavy(x) + medium(x) + light(x);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double end = now() + (argc > 1 ? atof(argv[1]) : 1);
	volatile uint64_t x = 88172645463325252;

	while (now() < end)
		x = work(x) | 1;
	return 0;
}
