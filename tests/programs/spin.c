/*
 * Spends CPU time in one function, whose name is FUNCTION.
 *
 * Usage: spin SECONDS [PROGRAM ARGS...]   seconds of CPU time, then executes PROGRAM
 * With -DREMOVE_ITSELF it first deletes its own file, with -DRENAME_ITSELF="path" it moves it there; with
 * -DREPROTECT it then makes the page of FUNCTION writable for a moment, as tracers that patch code do; with
 * -DNAME="name" it first takes a name; with -DLIBRARY it is a library of FUNCTION.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

#ifdef REPROTECT
__attribute__((aligned(4096)))
#endif
__attribute__((noinline)) void FUNCTION(double seconds)
{
	double end = cpu_time() + seconds;
	volatile uint64_t sink = 1;
	uint64_t x = sink;

	do {
		for (int i = 0; i < 100000; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
		}
		sink = x;
	} while (cpu_time() < end);
}

#ifndef LIBRARY
int main(int argc, char **argv)
{
#ifdef REMOVE_ITSELF
	if (unlink(argv[0]))
		return 1;
#endif
#ifdef RENAME_ITSELF
	if (rename(argv[0], RENAME_ITSELF))
		return 1;
#endif
#ifdef REPROTECT
	if (mprotect((void *)FUNCTION, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) ||
	    mprotect((void *)FUNCTION, 4096, PROT_READ | PROT_EXEC))
		return 1;
#endif
#ifdef NAME
	prctl(PR_SET_NAME, NAME);
#endif
	FUNCTION(argc > 1 ? atof(argv[1]) : 1);
	if (argc > 2) {
		execv(argv[2], argv + 2);
		perror(argv[2]);
		return 1;
	}
	return 0;
}
#endif
