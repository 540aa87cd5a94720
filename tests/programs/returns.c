// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* A chain of calls, of which somebody waits for a return. */
#include <stdlib.h>
#include <time.h>

static volatile unsigned long sink;

__attribute__((noinline)) void works(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sink += i;
}

__attribute__((noinline)) void returns(unsigned n)
{
	works(n);
	sink++;
}

__attribute__((noinline)) void outer(void)
{
	returns(300000);
	sink++;
}

int main(int argc, char **argv)
{
	clock_t end = clock() + CLOCKS_PER_SEC * atoi(argv[1]);

	(void)argc;
	while (clock() < end)
		outer();
	return 0;
}
