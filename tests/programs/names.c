/*
 * Names of threads and processes, as the kernel gives them.
 *
 * Usage: names inherits SECONDS	a thread called "pool" makes another thread and forks a child
 *        names renames			of its CPU time, the first fourth is "warm-up", the rest "request"
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds;

static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static inline __attribute__((always_inline)) void spin(double length)
{
	double end = cpu_time() + length;

	while (cpu_time() < end)
		for (int i = 0; i < 100000; i++)
			__asm__ volatile("");
}

__attribute__((noinline)) void spin_thread(void)
{
	spin(seconds);
}

__attribute__((noinline)) void spin_child(void)
{
	spin(seconds);
}

__attribute__((noinline)) void job(double length)
{
	spin(length);
}

static void *made_by_pool(void *unused)
{
	spin_thread();
	return NULL;
}

static void *pool(void *unused)
{
	pthread_t thread;

	prctl(PR_SET_NAME, "pool");
	pthread_create(&thread, NULL, made_by_pool, NULL);
	if (!fork()) {
		spin_child();
		_exit(0);
	}
	wait(NULL);
	pthread_join(thread, NULL);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc > 2 && !strcmp(argv[1], "inherits")) {
		seconds = atof(argv[2]);
		pthread_create(&thread, NULL, pool, NULL);
		pthread_join(thread, NULL);
	} else {
		prctl(PR_SET_NAME, "warm-up");
		job(0.2);
		prctl(PR_SET_NAME, "request");
		job(0.6);
	}
	return 0;
}
