/* many_mappings PIECES SECONDS: code in as many pieces, each apart from the others, as runtimes
 * have it that protect what they do not write; and a stack of 64 KiB, more than is sent to be
 * unwound. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

volatile unsigned long sink;

__attribute__((noinline)) void leaf_of_many(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sink += i;
}

__attribute__((noinline)) void recurse(int depth)
{
	volatile char local[1024];

	memset((void *)local, depth, sizeof(local));
	if (depth)
		recurse(depth - 1);
	else
		leaf_of_many(200000);
	sink += local[5];
}

int main(int argc, char **argv)
{
	time_t end;

	if (argc < 3)
		return 2;
	for (int i = atoi(argv[1]); i > 0; i--) {
		char *piece =
		    mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (piece == MAP_FAILED)
			return 1;
		piece[0] = 0xc3;
		if (mprotect(piece, 4096, PROT_READ | PROT_EXEC))
			return 1;
	}
	puts("ready");
	fflush(stdout);
	end = time(NULL) + atoi(argv[2]);
	while (time(NULL) < end)
		recurse(60);
	return 0;
}
