/*
 * Calls the page of old system calls, which lies at an address of the kernel's. x86-64.
 *
 * Usage: vsyscall SECONDS	of CPU time
 */
#include <stdlib.h>
#include <time.h>

static __attribute__((noinline)) void old_calls(void)
{
	long (*old_time)(long *) = (long (*)(long *))0xffffffffff600400;

	for (int i = 0; i < 1000; i++)
		old_time(0);
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	clock_t end = clock() + (argc > 1 ? atof(argv[1]) : 1) * CLOCKS_PER_SEC;

	while (clock() < end)
		old_calls();
	return 0;
}
