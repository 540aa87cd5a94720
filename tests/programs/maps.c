/*
 * Maps the beginning of files as code, whatever else they are, and runs what lies in them at an
 * offset, one file after the other, until it is ended.
 *
 * Usage: maps OFFSET FILE...
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOST (1 << 16)

int main(int argc, char **argv)
{
	long offset = atol(argv[1]);
	void (*run[1024])(void);
	int count = 0;

	for (int i = 2; i < argc && count < 1024; i++) {
		int fd = open(argv[i], O_RDONLY);
		char *at = mmap(NULL, MOST, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);

		if (at == MAP_FAILED) {
			perror(argv[i]);
			return 1;
		}
		run[count++] = (void (*)(void))(at + offset);
		close(fd);
	}
	puts("mapped");
	fflush(stdout);
	for (;;)
		for (int i = 0; i < count; i++)
			run[i]();
}
