/* A library without frame pointers: library_work, callee, leaf. */
#include <time.h>

static volatile unsigned long sink;

__attribute__((noinline)) static void library_leaf(void)
{
	unsigned long x = sink | 1;

	for (int i = 0; i < 20000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	sink = x;
}

__attribute__((noinline)) static void library_callee(int n)
{
	volatile char room[256];

	room[n & 255] = 1;
	library_leaf();
	sink += room[n & 255];
}

void library_work(double seconds)
{
	clock_t end = clock() + seconds * CLOCKS_PER_SEC;

	do {
		for (int i = 0; i < 100; i++)
			library_callee(i);
	} while (clock() < end);
}
