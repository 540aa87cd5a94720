/* Loads a library after a while, and computes in it. Usage: loads LIBRARY SECONDS */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	void (*work)(double);
	void *library;

	usleep(300000);
	library = dlopen(argv[1], RTLD_NOW);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	work = (void (*)(double))dlsym(library, "library_work");
	work(atof(argv[2]));
	return 0;
}
