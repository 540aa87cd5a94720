/* Asks for the time, which user mode can read, for SECONDS of CPU time: clock SECONDS */
#include <stdlib.h>
#include <time.h>

/* Its own CPU time, in seconds: beside other work, it does as much as alone. */
static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct timespec t;
	double end = cpu_time() + (argc > 1 ? atof(argv[1]) : 1);

	while (cpu_time() < end) {
		for (int i = 0; i < 10000; i++)
			clock_gettime(CLOCK_MONOTONIC, &t);
	}
	return 0;
}
