// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* Most of the time is in the C library's memcpy and memset. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char from[1 << 16], to[1 << 16];

__attribute__((noinline)) void copies(size_t n)
{
	for (int i = 0; i < 500; i++) {
		memcpy(to, from, n);
		__asm__ volatile("" ::: "memory");
	}
}

__attribute__((noinline)) void fills(size_t n)
{
	for (int i = 0; i < 500; i++) {
		memset(to, i, n);
		__asm__ volatile("" ::: "memory");
	}
}

int main(int argc, char **argv)
{
	clock_t end = clock() + CLOCKS_PER_SEC * atoi(argv[1]);

	while (clock() < end) {
		copies(sizeof(to) - argc);
		fills(sizeof(to) - argc);
	}
	return 0;
}
