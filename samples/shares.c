/*
 * Known shares of CPU time: heavy 70 %, medium 20 %, light 10 %, whatever the compiler, the flags
 * and the speed of the machine, because the three differ in nothing but their number of steps.
 *
 * Usage: shares SECONDS   of its own CPU time
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/*
 * One round of work lasts about 120 ms, many periods of the sampler: each function has its share of
 * a round's samples but for a part of one. With far shorter rounds every sample would fall anywhere
 * by chance, and then 1,000 of them tell 70 % to 3 points in 19 of 20 runs only.
 * No two rounds are of one length, lest they beat against the samples.
 */
#define STEPS 500000

/* Each step needs the one before, so that no compiler makes the loop shorter. */
#define DEFINE_SPIN(name, share)                                                                   \
	__attribute__((noinline, aligned(64))) static uint64_t name(uint64_t x, long steps)        \
	{                                                                                          \
		for (long i = 0; i < (share)*steps; i++) {                                         \
			x ^= x << 13;                                                              \
			x ^= x >> 7;                                                               \
			x ^= x << 17;                                                              \
		}                                                                                  \
		return x;                                                                          \
	}

DEFINE_SPIN(heavy, 70)
DEFINE_SPIN(medium, 20)
DEFINE_SPIN(light, 10)

/* The sum keeps the last call from becoming a jump, which would take this frame off the stack. */
__attribute__((noinline)) static uint64_t work(uint64_t x)
{
	long steps = STEPS / 2 + (x >> 20) % STEPS;

	return heavy(x, steps) + medium(x, steps) + light(x, steps);
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
	double end = cpu_time() + (argc > 1 ? atof(argv[1]) : 1);
	volatile uint64_t x = 88172645463325252;

	while (cpu_time() < end)
		x = work(x) | 1;
	return 0;
}
