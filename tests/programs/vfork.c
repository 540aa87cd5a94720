/*
 * Starts children by vfork(), which sleep in their parent's memory.
 *
 * Usage: vfork SECONDS
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline)) void starts_children(void)
{
	for (int i = 0; i < 20; i++) {
		pid_t child = vfork();

		if (!child) {
			struct timespec length = {0, 8000000};

			nanosleep(&length, NULL);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	time_t end = time(NULL) + atoi(argv[1]);

	while (time(NULL) < end)
		starts_children();
	return 0;
}
