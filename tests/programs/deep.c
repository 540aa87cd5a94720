/*
 * Frames of every kind that compilers make without frame pointers, one above the other, for 2 s of CPU
 * time or what SECONDS says.
 */
#include <alloca.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static volatile uint64_t sink;
static double end;

/* Its own CPU time, in seconds: beside other work, it does as much as alone. */
static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

__attribute__((noinline)) void leaf(void)
{
	uint64_t x = sink | 1;

	for (int i = 0; i < 20000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	sink = x;
}

static int compare(const void *a, const void *b)
{
	leaf();
	return *(const int *)a - *(const int *)b;
}

/* libc calls back. */
__attribute__((noinline)) void sorted(void)
{
	int numbers[] = { 3, 1, 2, 5, 4 };

	qsort(numbers, 5, sizeof(int), compare);
	sink += numbers[0];
}

__attribute__((noinline)) void with_alloca(int n)
{
	char *memory = alloca(n);

	memset(memory, n, n);
	sorted();
	sink += memory[n / 2];
}

__attribute__((noinline)) void variable(int n)
{
	char array[n];

	memset(array, n, n);
	with_alloca(n + 33);
	sink += array[n / 2];
}

__attribute__((noinline)) void realigned(int n)
{
	char aligned[128] __attribute__((aligned(64)));

	memset(aligned, n, sizeof(aligned));
	variable(n + (int)((uintptr_t)aligned & 63));
	sink += aligned[n & 127];
}

__attribute__((noinline)) void down(int depth)
{
	if (depth)
		down(depth - 1);
	else
		leaf();
	sink++;
}

__attribute__((noinline)) void handler(int signal)
{
	(void)signal;
	for (int i = 0; i < 50; i++)
		leaf();
}

int main(int argc, char **argv)
{
	int n = 0;

	(void)argv;
	signal(SIGUSR1, handler);
	signal(SIGPROF, handler);
	if (argc == 2 && argv[1][0] == 't')
		setitimer(ITIMER_PROF, &(struct itimerval){{0, 5000}, {0, 5000}}, NULL);
	end = cpu_time() + (getenv("SECONDS") ? atof(getenv("SECONDS")) : 2);
	while (cpu_time() < end) {
		if (argc == 1)
			realigned(100 + n++ % 400);
		else if (argv[1][0] == 'r' || argv[1][0] == 't')
			down(200);
		else
			raise(SIGUSR1);
	}
	return 0;
}
