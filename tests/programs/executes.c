/*
 * A second thread waits for 200 ms and executes the program again, which then waits for 300 ms. The
 * process has one id throughout, and the thread takes it over.
 */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void *work(void *argument)
{
	sleep_ms(200);
	execl("/proc/self/exe", argument, "again", (char *)NULL);
	return argument;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc > 1) {
		sleep_ms(300);
		return 0;
	}
	pthread_create(&thread, NULL, work, argv[0]);
	pthread_join(thread, NULL);
	return 1;
}
