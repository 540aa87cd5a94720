/*
 * One thread for each way to wait, each in a function of its own, and all of known truth: what a
 * profiler of blocked time should find.
 *
 * Usage: blocking SECONDS [DIRECTORY]; the files that are synced and read are made in DIRECTORY.
 * Prints a line for each thread: its name and function, and the nanoseconds that it was blocked, by
 * the clock, less the time it ran and, as the scheduler counts it, waited for a CPU.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 7000000
#define FILE_BYTES (64 << 20)
#define BLOCK (1 << 20)

static atomic_bool stop;
static char path[4096];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void sleep_ns(long ns)
{
	nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* Nanoseconds that the calling thread was runnable and not on a CPU. */
static uint64_t run_delay(void)
{
	unsigned long long ran, delay = 0;
	FILE *file = fopen("/proc/thread-self/schedstat", "r");

	if (!file || fscanf(file, "%llu %llu", &ran, &delay) != 2)
		exit(2);
	fclose(file);
	return delay;
}

struct kind {
	const char *name;
	void (*wait)(struct kind *kind);
	int fd; /* read end of a pipe into which the ticker writes, or a file */
	int write_fd;
	pthread_t thread;
	uint64_t blocked_ns;
	char *buffer;
	uint64_t round;
};

__attribute__((noinline)) static void in_nanosleep(struct kind *kind)
{
	sleep_ns(TICK_NS);
	kind->round++;
}

__attribute__((noinline)) static void in_pipe_read(struct kind *kind)
{
	char byte;

	if (read(kind->fd, &byte, 1) != 1)
		atomic_store(&stop, true);
	kind->round++;
}

__attribute__((noinline)) static void in_mutex(struct kind *kind)
{
	pthread_mutex_lock(&mutex);
	pthread_mutex_unlock(&mutex);
	/* The holder has its turn, and this thread something to wait for. */
	sched_yield();
	kind->round++;
}

__attribute__((noinline)) static void in_poll(struct kind *kind)
{
	struct pollfd fd = {.fd = kind->fd, .events = POLLIN};
	char byte;

	poll(&fd, 1, -1);
	if (read(kind->fd, &byte, 1) != 1)
		atomic_store(&stop, true);
	kind->round++;
}

__attribute__((noinline)) static void in_epoll(struct kind *kind)
{
	static __thread int epoll = -1;
	struct epoll_event event = {.events = EPOLLIN};
	char byte;

	if (epoll < 0) {
		epoll = epoll_create1(0);
		epoll_ctl(epoll, EPOLL_CTL_ADD, kind->fd, &event);
	}
	epoll_wait(epoll, &event, 1, -1);
	if (read(kind->fd, &byte, 1) != 1)
		atomic_store(&stop, true);
	kind->round++;
}

__attribute__((noinline)) static void in_fsync(struct kind *kind)
{
	if (pwrite(kind->fd, kind->buffer, BLOCK, (off_t)(kind->round++ % 64) * BLOCK) != BLOCK ||
	    fsync(kind->fd))
		exit(3);
}

__attribute__((noinline)) static void in_disk_read(struct kind *kind)
{
	uint64_t block = kind->round++ * 7919 % (FILE_BYTES / BLOCK);

	if (pread(kind->fd, kind->buffer, BLOCK, block * BLOCK) != BLOCK)
		exit(4);
}

static struct kind kinds[] = {
    {"nanosleep", in_nanosleep}, {"pipe", in_pipe_read}, {"mutex", in_mutex},	 {"poll", in_poll},
    {"epoll", in_epoll},	 {"fsync", in_fsync},	 {"disk", in_disk_read},
};
#define KINDS (sizeof(kinds) / sizeof(*kinds))

static void *work(void *argument)
{
	struct kind *kind = argument;
	uint64_t wall, ran, delayed;

	wall = now(CLOCK_MONOTONIC);
	delayed = run_delay();
	ran = now(CLOCK_THREAD_CPUTIME_ID);
	while (!atomic_load(&stop))
		kind->wait(kind);
	ran = now(CLOCK_THREAD_CPUTIME_ID) - ran;
	delayed = run_delay() - delayed;
	wall = now(CLOCK_MONOTONIC) - wall;
	kind->blocked_ns = wall - ran - delayed;
	return NULL;
}

static void *hold(void *unused)
{
	while (!atomic_load(&stop)) {
		pthread_mutex_lock(&mutex);
		sleep_ns(TICK_NS);
		pthread_mutex_unlock(&mutex);
		sleep_ns(100000);
	}
	return unused;
}

static int make_file(const char *directory, const char *name, int flags)
{
	char *buffer = aligned_alloc(4096, BLOCK);
	int fd;

	snprintf(path, sizeof(path), "%s/%s.%d", directory, name, getpid());
	fd = open(path, O_RDWR | O_CREAT | flags, 0600);
	if (fd < 0) {
		/* Not every file system reads around its cache. */
		fd = open(path, O_RDWR | O_CREAT, 0600);
	}
	if (fd < 0) {
		perror(path);
		exit(5);
	}
	unlink(path);
	memset(buffer, 1, BLOCK);
	for (int i = 0; i < FILE_BYTES / BLOCK; i++) {
		if (pwrite(fd, buffer, BLOCK, (off_t)i * BLOCK) != BLOCK)
			exit(6);
	}
	fsync(fd);
	free(buffer);
	return fd;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 5;
	const char *directory = argc > 2 ? argv[2] : "/tmp";
	uint64_t end;
	pthread_t holder;

	for (struct kind *kind = kinds; kind < kinds + KINDS; kind++) {
		int ends[2];

		kind->buffer = aligned_alloc(4096, BLOCK);
		memset(kind->buffer, 2, BLOCK);
		if (!strcmp(kind->name, "fsync")) {
			kind->fd = make_file(directory, "fsync", 0);
		} else if (!strcmp(kind->name, "disk")) {
			kind->fd = make_file(directory, "disk", O_DIRECT);
		} else {
			if (pipe(ends))
				return 1;
			kind->fd = ends[0];
			kind->write_fd = ends[1];
		}
	}
	end = now(CLOCK_MONOTONIC) + seconds * 1e9;
	pthread_create(&holder, NULL, hold, NULL);
	pthread_setname_np(holder, "holder");
	for (struct kind *kind = kinds; kind < kinds + KINDS; kind++) {
		pthread_create(&kind->thread, NULL, work, kind);
		pthread_setname_np(kind->thread, kind->name);
	}
	while (now(CLOCK_MONOTONIC) < end) {
		sleep_ns(TICK_NS);
		for (struct kind *kind = kinds; kind < kinds + KINDS; kind++) {
			if (kind->write_fd && write(kind->write_fd, "", 1) != 1)
				return 1;
		}
	}
	atomic_store(&stop, true);
	for (struct kind *kind = kinds; kind < kinds + KINDS; kind++) {
		if (kind->write_fd && write(kind->write_fd, "", 1) != 1)
			return 1;
		pthread_join(kind->thread, NULL);
		printf("%s %llu\n", kind->name, (unsigned long long)kind->blocked_ns);
	}
	pthread_join(holder, NULL);
	return 0;
}
