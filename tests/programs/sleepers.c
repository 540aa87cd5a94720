/*
 * Very many threads, each of which sleeps in `asleep` again and again. Prints how often all of them
 * together did: each time is one block.
 *
 * Usage: sleepers THREADS PERIOD_MS SECONDS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static atomic_bool stop;
static atomic_ulong rounds;
static struct timespec period;

__attribute__((noinline)) static void asleep(void)
{
	nanosleep(&period, NULL);
	atomic_fetch_add(&rounds, 1);
}

static void *work(void *unused)
{
	while (!atomic_load(&stop))
		asleep();
	return unused;
}

int main(int argc, char **argv)
{
	int threads = argc > 3 ? atoi(argv[1]) : 100;
	long ms = argc > 3 ? atol(argv[2]) : 100;
	pthread_t *thread = calloc(threads, sizeof(*thread));
	pthread_attr_t attributes;

	period = (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 32 << 10);
	for (int i = 0; i < threads; i++) {
		if (pthread_create(&thread[i], &attributes, work, NULL)) {
			perror("pthread_create");
			return 1;
		}
	}
	nanosleep(&(struct timespec){.tv_sec = argc > 3 ? atol(argv[3]) : 1}, NULL);
	atomic_store(&stop, 1);
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	printf("rounds %lu\n", atomic_load(&rounds));
	return 0;
}
