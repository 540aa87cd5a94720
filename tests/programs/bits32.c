/*
 * For the 32-bit mode of the machine: spends half its time in a function and half in the kernel's
 * page of user code; or all of it in the function, called by a signal's handler.
 *
 * Usage: bits32 plain|signal|siginfo SECONDS   seconds of CPU time
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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

__attribute__((noinline)) void handles(int number)
{
	busy_in_32_bits();
	sink += number;
}

__attribute__((noinline)) void computes(int is_plain)
{
	char room[64];

	memset(room, is_plain, sizeof(room));
	if (is_plain)
		busy_in_32_bits();
	else
		raise(SIGUSR1);
	sink += room[sink & 63];
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = handles};
	clock_t end = clock() + (clock_t)(atof(argv[2]) * CLOCKS_PER_SEC);
	int is_plain = !strcmp(argv[1], "plain");

	if (!strcmp(argv[1], "siginfo"))
		action.sa_flags = SA_SIGINFO;
	sigaction(SIGUSR1, &action, NULL);
	while (clock() < end) {
		computes(is_plain);
		if (is_plain)
			asks_the_clock();
	}
	return 0;
}
