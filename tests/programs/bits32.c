/*
 * For the 32-bit mode of the machine: spends half its time in a function and half in the kernel's page
 * of user code.
 *
 * Usage: bits32 SECONDS   seconds of CPU time
 */
#include <stdlib.h>
#include <time.h>

volatile unsigned long sink;

__attribute__((noinline)) void busy_in_32_bits(void)
{
	for (unsigned int i = 0; i < 2000000; i++)
		sink += i;
}

__attribute__((noinline)) void asks_the_clock(void)
{
	struct timespec t;

	for (int i = 0; i < 30000; i++)
		clock_gettime(CLOCK_MONOTONIC, &t);
}

int main(int argc, char **argv)
{
	clock_t end = clock() + (clock_t)(atof(argv[argc - 1]) * CLOCKS_PER_SEC);

	while (clock() < end) {
		busy_in_32_bits();
		asks_the_clock();
	}
	return 0;
}
