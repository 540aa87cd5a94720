/*
 * A fixed amount of arithmetic on many threads, a known number of frames deep: a program whose
 * wall-clock time says how much of the CPUs somebody else took.
 *
 * Usage: threads THREADS MILLIONS [FRAMES]; MILLIONS of rounds by all threads together, on stacks
 * of FRAMES frames (16), libc's two included. Prints the seconds they took.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t rounds; /* of each thread */
static int frames = 16;
static volatile uint64_t sink;

/* Each step needs the one before, so that no compiler makes the loop shorter. */
__attribute__((noinline)) static uint64_t spin(uint64_t x)
{
	for (uint64_t i = 0; i < rounds; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	return x;
}

/* The sum keeps the calls from becoming jumps, which would take the frames off the stack. */
__attribute__((noinline)) static uint64_t descend(int depth, uint64_t x)
{
	volatile uint64_t local[8]; /* as much as a function commonly has */
	uint64_t y;

	local[depth & 7] = x;
	y = depth ? descend(depth - 1, x) : spin(x);
	return y + local[depth & 7];
}

static void *work(void *seed)
{
	/* Beside these: clone3, start_thread, work, the last descend and spin. */
	sink = descend(frames - 5, (uintptr_t)seed | 1);
	return NULL;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 1;
	pthread_t *ids = calloc(threads, sizeof(*ids));
	double start = now();

	if (argc > 3 && atoi(argv[3]) > 5)
		frames = atoi(argv[3]);
	rounds = (argc > 2 ? atof(argv[2]) : 100) * 1e6 / threads;
	for (uintptr_t i = 0; i < threads; i++) {
		if (pthread_create(&ids[i], NULL, work, (void *)(2 * i + 88172645463325252)))
			return 1;
	}
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	printf("%.6f\n", now() - start);
	return 0;
}
