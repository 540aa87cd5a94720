/*
 * Moves the code of a library elsewhere, of which the kernel tells nobody, and runs it there.
 *
 * Usage: moved SECONDS LIBRARY FUNCTION	which begins at a page and needs only that
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	void *library = dlopen(argv[2], RTLD_NOW), *from, *to;
	void (*work)(void);
	double end;

	if (!library || !(from = dlsym(library, argv[3])))
		return 1;
	to = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mremap(from, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return 1;
	work = (void (*)(void))to;
	end = cpu_time() + atof(argv[1]);
	while (cpu_time() < end)
		work();
	_exit(0); /* what else is on that page is no more where it was */
}
