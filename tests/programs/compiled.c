/*
 * Code made at run time, in memory that the kernel gives a file of its own or none, with a perf map
 * that names it `compiled_function`. Exits with 77 if there is no such memory here.
 *
 * Usage: compiled MEMORY SECONDS   seconds of CPU time
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <time.h>
#include <unistd.h>

#define SIZE (2 << 20)
#define AT 0x100

/* push %rbp; mov %rsp, %rbp; mov $0x400000, %ecx; 1: dec %ecx; jnz 1b; pop %rbp; ret */
static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xb9, 0x00, 0x00, 0x40,
				     0x00, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3};

static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static char *map(int flags, int fd)
{
	if (fd >= 0 && ftruncate(fd, SIZE))
		return MAP_FAILED;
	return mmap(NULL, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, flags, fd, 0);
}

/* A file without a name, in a directory. */
static int unnamed(const char *directory)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/codeXXXXXX", directory);
	fd = mkstemp(path);
	unlink(path);
	return fd;
}

static char *memory(const char *kind)
{
	if (!strcmp(kind, "private"))
		return map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (!strcmp(kind, "shared"))
		return map(MAP_SHARED | MAP_ANONYMOUS, -1);
	if (!strcmp(kind, "huge"))
		return map(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	if (!strcmp(kind, "memfd"))
		return map(MAP_SHARED, memfd_create("code", 0));
	if (!strcmp(kind, "shm"))
		return map(MAP_SHARED, unnamed("/dev/shm"));
	if (!strcmp(kind, "file"))
		return map(MAP_SHARED, unnamed("/tmp"));
	if (!strcmp(kind, "sysv")) {
		int id = shmget(IPC_PRIVATE, SIZE, 0700);
		char *at = shmat(id, NULL, SHM_EXEC);

		shmctl(id, IPC_RMID, NULL);
		return at;
	}
	return MAP_FAILED;
}

int main(int argc, char **argv)
{
	char *at = argc == 3 ? memory(argv[1]) : MAP_FAILED;
	char path[64];
	FILE *perf_map;
	double end;

	if (at == MAP_FAILED)
		return 77;
	memcpy(at + AT, code, sizeof(code));
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	perf_map = fopen(path, "w");
	if (!perf_map)
		return 1;
	fprintf(perf_map, "%lx %zx compiled_function\n", (unsigned long)at + AT, sizeof(code));
	fclose(perf_map);
	end = cpu_time() + atof(argv[2]);
	while (cpu_time() < end)
		((void (*)(void))(at + AT))();
	unlink(path);
	return 0;
}
