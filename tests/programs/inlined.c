/* Functions that gcc -O2 inlines into one another, three deep: inlined CPU_SECONDS */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define ALWAYS static inline __attribute__((always_inline))

ALWAYS uint64_t rotate(uint64_t x, int by)
{
	return (x << by) |
	       (x >> (64 - by));
}

ALWAYS uint64_t mix(uint64_t x)
{
	x ^= rotate(x, 25);
	x *= 0x9e3779b97f4a7c15;
	x ^= rotate(x, 47);
	return x;
}

ALWAYS uint64_t round_of(const uint64_t *table, uint64_t x)
{
	for (int i = 0; i < 16; i++)
		x = mix(x + table[i]);
	return x;
}

__attribute__((noinline)) static uint64_t outer(const uint64_t *table, uint64_t x)
{
	for (int i = 0; i < 1000; i++) {
		x = round_of(table, x);
		if (x & 1)
			x = mix(x);
	}
	return x;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = mix(*(const uint64_t *)a), y = mix(*(const uint64_t *)b);

	return (x > y) - (x < y);
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
	uint64_t table[4096] = { 1, 2, 3 };
	uint64_t x = 1;

	while (cpu_time() < end) {
		for (int i = 0; i < 50; i++)
			x = outer(table, x);
		for (int i = 0; i < 4096; i++)
			table[i] = x = mix(x);
		qsort(table, 4096, sizeof(table[0]), compare);
	}
	return x == 42;
}
