/*
 * Loads and unloads two plug-ins in turn, which all come to the same address.
 *
 * Usage: plugins SECONDS FIRST OTHER	prints the second one's share of the CPU time, a fourth
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double end = cpu_time() + atof(argv[1]), spent[2] = {0}, begin;
	void *library, *at[2] = {0};
	void (*entry)(void);

	for (int i = 0; cpu_time() < end; i++) {
		int which = i % 4 == 3;

		library = dlopen(argv[2 + which], RTLD_NOW);
		if (!library)
			return 1;
		entry = (void (*)(void))dlsym(library, "entry");
		at[which] = entry;
		begin = cpu_time();
		while (cpu_time() < begin + 0.06)
			entry();
		spent[which] += cpu_time() - begin;
		dlclose(library);
	}
	printf("%d %.4f\n", at[0] == at[1], spent[1] / (spent[0] + spent[1]));
	return 0;
}
