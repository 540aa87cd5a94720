/*
 * The first thread ends and another goes on: /proc/PID/maps is empty then.
 *
 * Usage: orphan SECONDS
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

volatile unsigned long sink;

__attribute__((noinline)) void spin_of_survivor(void)
{
	for (int i = 0; i < 100000; i++)
		sink += i;
}

static void *survive(void *seconds)
{
	time_t end = time(NULL) + *(int *)seconds;

	while (time(NULL) < end)
		spin_of_survivor();
	exit(0);
}

int main(int argc, char **argv)
{
	static int seconds;
	pthread_t thread;

	seconds = atoi(argv[1]);
	pthread_create(&thread, NULL, survive, &seconds);
	pthread_exit(NULL);
}
