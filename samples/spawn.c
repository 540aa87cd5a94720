/*
 * Starts a program over and over, one after the other, as shell scripts and builds do.
 *
 * Usage: spawn TIMES PROGRAM [ARGUMENT…]; prints the seconds it took
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double start = now();
	int status;

	if (argc < 3)
		return 2;
	for (int i = atoi(argv[1]); i > 0; i--) {
		pid_t child = fork();

		if (child == 0) {
			execv(argv[2], argv + 2);
			_exit(127);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || status)
			return 1;
	}
	printf("%.6f\n", now() - start);
	return 0;
}
