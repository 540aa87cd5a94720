/* Calls a function of a library so short that much of the time is its stub's, in the procedure
 * linkage table. With -DLIBRARY the library. */
#ifdef LIBRARY
__attribute__((noinline)) unsigned long tiny(unsigned long x)
{
	return x + 1;
}
#else
#include <stdlib.h>
#include <time.h>

unsigned long tiny(unsigned long);
volatile unsigned long sink;

__attribute__((noinline)) void calls_tiny(void)
{
	for (int i = 0; i < 1000000; i++)
		tiny(i);
	sink++;
}

int main(int argc, char **argv)
{
	clock_t end = clock() + CLOCKS_PER_SEC * (argc > 1 ? atoi(argv[1]) : 2);

	while (clock() < end)
		calls_tiny();
	return 0;
}
#endif
