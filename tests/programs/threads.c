/* Two threads with names, each busy in a function of its own for the given CPU seconds. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static double seconds;

static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

#define DEFINE_THREAD(function, name)                                                              \
	__attribute__((noinline)) static void function(void)                                       \
	{                                                                                          \
		volatile uint64_t x = 1;                                                           \
                                                                                                   \
		do {                                                                               \
			for (int i = 0; i < 100000; i++)                                           \
				x = x * 31 + 7;                                                    \
		} while (cpu_time() < seconds);                                                    \
	}                                                                                          \
	static void *run_##function(void *unused)                                                  \
	{                                                                                          \
		pthread_setname_np(pthread_self(), name);                                          \
		function();                                                                        \
		return unused;                                                                     \
	}

DEFINE_THREAD(busy_alpha, "alpha-worker")
DEFINE_THREAD(busy_beta, "beta-worker")

int main(int argc, char **argv)
{
	pthread_t alpha, beta;

	seconds = argc > 1 ? atof(argv[1]) : 1;
	pthread_create(&alpha, NULL, run_busy_alpha, NULL);
	pthread_create(&beta, NULL, run_busy_beta, NULL);
	pthread_join(alpha, NULL);
	pthread_join(beta, NULL);
	return 0;
}
