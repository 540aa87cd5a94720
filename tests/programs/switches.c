/*
 * Pairs of threads that wake each other through pipes, each pair on one CPU: as many switches as the
 * machine is good for. Prints how many the kernel has counted, without those of the last moment.
 *
 * Usage: switches PAIRS SECONDS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static atomic_bool stop;

struct pair {
	int ping[2], pong[2];
	int cpu;
	pthread_t threads[2];
};

static void pin(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
}

static void *ping(void *argument)
{
	struct pair *pair = argument;
	char byte = 0;

	pin(pair->cpu);
	while (!atomic_load(&stop)) {
		if (write(pair->ping[1], &byte, 1) != 1 || read(pair->pong[0], &byte, 1) != 1)
			exit(2);
	}
	close(pair->ping[1]);
	return NULL;
}

static void *pong(void *argument)
{
	struct pair *pair = argument;
	char byte;

	pin(pair->cpu);
	while (read(pair->ping[0], &byte, 1) == 1) {
		if (write(pair->pong[1], &byte, 1) != 1)
			exit(3);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int pairs = argc > 2 ? atoi(argv[1]) : 2;
	struct pair *all = calloc(pairs, sizeof(*all));
	struct rusage usage;

	for (int i = 0; i < pairs; i++) {
		all[i].cpu = i % sysconf(_SC_NPROCESSORS_ONLN);
		if (pipe(all[i].ping) || pipe(all[i].pong))
			return 1;
		pthread_create(&all[i].threads[0], NULL, ping, &all[i]);
		pthread_create(&all[i].threads[1], NULL, pong, &all[i]);
	}
	sleep(argc > 2 ? atoi(argv[2]) : 1);
	atomic_store(&stop, 1);
	for (int i = 0; i < pairs; i++) {
		pthread_join(all[i].threads[0], NULL);
		pthread_join(all[i].threads[1], NULL);
	}
	getrusage(RUSAGE_SELF, &usage);
	printf("switches %ld\n", usage.ru_nvcsw + usage.ru_nivcsw);
	return 0;
}
