/*
 * Does what perf counts, so many times of each: touches PAGES new pages, asks for its parent CALLS
 * times, blocks BLOCKS times. Waits for a byte on standard input first, and then for another one.
 * Says what the kernel counted for it in between.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 };

__attribute__((noinline)) static void touches(long pages)
{
	for (long done = 0; done < pages; done += CHUNK) {
		char *memory = mmap(NULL, CHUNK * 4096, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			exit(1);
		madvise(memory, CHUNK * 4096, MADV_NOHUGEPAGE);
		for (int i = 0; i < CHUNK; i++)
			((volatile char *)memory)[i * 4096] = 1;
		munmap(memory, CHUNK * 4096);
	}
}

__attribute__((noinline)) static void asks(long calls)
{
	for (long i = 0; i < calls; i++)
		syscall(SYS_getppid);
}

__attribute__((noinline)) static void blocks(long times)
{
	struct timespec shortest = {.tv_nsec = 1};

	for (long i = 0; i < times; i++)
		nanosleep(&shortest, NULL);
}

__attribute__((noinline)) static void computes(long ms)
{
	struct timespec begin, now;
	volatile long sum = 0;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	do {
		for (int i = 0; i < 10000; i++)
			sum += i;
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	} while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < ms);
}

static double cpu_ms(const struct rusage *usage)
{
	return (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1e3 +
	       (usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e3;
}

int main(int argc, char **argv)
{
	struct rusage before, after;
	char byte;

	if (argc < 5)
		return 2;
	if (read(0, &byte, 1) < 0)
		return 1;
	getrusage(RUSAGE_SELF, &before);
	touches(atol(argv[1]));
	asks(atol(argv[2]));
	blocks(atol(argv[3]));
	computes(atol(argv[4]));
	getrusage(RUSAGE_SELF, &after);
	printf("faults %ld switches %ld ms %.0f\n",
	       after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt,
	       after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
	       cpu_ms(&after) - cpu_ms(&before));
	fflush(stdout);
	return read(0, &byte, 1) < 0;
}
