/* Loads a library after a while and spends CPU time in it: late LIBRARY FUNCTION SECONDS */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	void *library;
	void (*function)(double);

	if (argc != 4)
		return 2;
	usleep(300000);
	library = dlopen(argv[1], RTLD_NOW);
	function = library ? (void (*)(double))dlsym(library, argv[2]) : NULL;
	if (!function) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	function(atof(argv[3]));
	return 0;
}
