/*
 * A runtime that compiles code as it runs, at one address in all of its processes, and lists it.
 *
 * Usage: compiles SECONDS workers	two forked workers, each with a perf map of its own
 *        compiles SECONDS dump DIR	a jitdump in DIR, with a line
 *        compiles SECONDS at-exit	a perf map that is written when the process ends, as a JVM's is
 *        compiles SECONDS silent	no list; prints the line that a perf map would have
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* push %rbp; mov %rsp,%rbp; mov $0x400000,%ecx; 1: dec %ecx; jnz 1b; pop %rbp; ret */
static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xb9, 0,    0,   0x40,
				     0,	   0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3};

static void compute(void *at, double seconds)
{
	while ((double)clock() / CLOCKS_PER_SEC < seconds)
		((void (*)(void))at)();
}

static void list(void *at, const char *name)
{
	char path[64];
	FILE *map;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	fprintf(map, "%lx %zx %s\n", (unsigned long)at, sizeof(code), name);
	fclose(map);
}

static void work(void *at, const char *name, double seconds)
{
	char path[64];

	memcpy(at, code, sizeof(code));
	list(at, name);
	compute(at, seconds);
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	unlink(path);
	_exit(0);
}

/* See tools/perf/Documentation/jitdump-specification.txt in Linux. */
static void dump(void *at, const char *dir)
{
	struct {
		uint32_t magic, version, size, machine, padding, pid;
		uint64_t time, flags;
	} header = {0x4a695444, 1, sizeof(header), 62, 0, getpid(), 1, 0};
	struct {
		uint32_t kind, size;
		uint64_t time, address, entries, line_address;
		uint32_t line, discriminator;
		char file[16];
	} lines = {2, sizeof(lines), 1, (uint64_t)at, 1, (uint64_t)at, 42, 0, "source.of.jit"};
	struct {
		uint32_t kind, size;
		uint64_t time;
		uint32_t pid, tid;
		uint64_t vma, address, code_size, index;
		char name[16];
		unsigned char code[16];
	} load = {0,	    sizeof(load), 1, getpid(), getpid(), (uint64_t)at,
		  (uint64_t)at, sizeof(code), 0, "dumped_function"};
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/jit-%d.dump", dir, getpid());
	fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0); /* says that it is ours */
	memcpy(at, code, sizeof(code));
	if (write(fd, &header, sizeof(header)) < 0 || write(fd, &lines, sizeof(lines)) < 0 ||
	    write(fd, &load, sizeof(load)) < 0)
		exit(1);
}

int main(int argc, char **argv)
{
	double seconds = atof(argv[1]);
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!strcmp(argv[2], "dump")) {
		dump(at, argv[3]);
		compute(at, seconds);
		return 0;
	}
	memcpy(at, code, sizeof(code));
	if (!strcmp(argv[2], "at-exit")) {
		compute(at, seconds);
		usleep(600000);
		list(at, "listed_at_exit");
		return 0;
	}
	if (!strcmp(argv[2], "silent")) {
		printf("%lx %zx\n", (unsigned long)at, sizeof(code));
		fflush(stdout);
		compute(at, seconds);
		return 0;
	}
	if (!fork())
		work(at, "compiled_by_one", seconds);
	if (!fork())
		work(at, "compiled_by_other", seconds);
	wait(NULL);
	wait(NULL);
	return 0;
}
