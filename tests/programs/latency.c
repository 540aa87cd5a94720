/*
 * Calls functions and says how often, and how long that took. One word of the command line, one
 * kind of calls:
 *
 *   sleeps N      N calls of `asleep` that sleep for 0.3, 1.5, 3 and 6 ms in turn
 *   recursion N   `recurses` to a depth of 10, N times
 *   deep N        `recurses` to a depth of 100, N times
 *   longjmp N     `leaves`, which never returns, N times, from 3 calls of `enters` each
 *   jumps N       `even` and `odd`, which jump to each other 8 times, N times
 *   threads N     `asleep` in 4 threads, N times each
 *   asks N        getppid(2)
 *   reads N       a byte of /dev/zero
 *   endless       `asks_itself` for ever
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static const long lengths_us[] = {300, 1500, 3000, 6000};
static long slots[64], slow;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static jmp_buf back;
static volatile long sum;

static long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* Returns how long it took, by its own clock. */
NOINLINE long asleep(long us)
{
	long began = now_ns();
	struct timespec time = {.tv_nsec = us * 1000};

	clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
	return now_ns() - began;
}

static void note(long ns)
{
	pthread_mutex_lock(&lock);
	slots[63 - __builtin_clzl(ns)]++;
	slow += ns >= 2000000;
	pthread_mutex_unlock(&lock);
}

static void *sleeps(void *times)
{
	for (long i = 0; i < (long)times; i++)
		note(asleep(lengths_us[i % 4]));
	return NULL;
}

NOINLINE long recurses(long depth)
{
	sum++;
	if (depth <= 1)
		return 1;
	return recurses(depth - 1) + sum % 2;
}

NOINLINE long leaves(long value)
{
	sum += value;
	longjmp(back, 1);
}

NOINLINE long enters(long depth)
{
	sum++;
	if (!depth)
		return leaves(1) + sum;
	return enters(depth - 1) + sum % 2;
}

NOINLINE long odd(long n);

NOINLINE long even(long n)
{
	sum++;
	return n ? odd(n - 1) : sum;
}

NOINLINE long odd(long n)
{
	sum--;
	return n ? even(n - 1) : sum;
}

NOINLINE long asks_itself(long n)
{
	return sum += n;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long times = argc > 2 ? atol(argv[2]) : 0;
	pthread_t threads[4];

	if (!strcmp(what, "sleeps"))
		sleeps((void *)times);
	else if (!strcmp(what, "threads")) {
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, sleeps, (void *)times);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
	}
	if (!strcmp(what, "reads")) {
		int zero = open("/dev/zero", O_RDONLY);
		char byte;

		for (long i = 0; i < times; i++) {
			if (read(zero, &byte, 1) != 1)
				return 1;
		}
		times = 0;
	}
	for (volatile long i = 0; i < times; i++) {
		if (!strcmp(what, "recursion"))
			recurses(10);
		else if (!strcmp(what, "deep"))
			recurses(100);
		else if (!strcmp(what, "longjmp") && !setjmp(back))
			enters(2);
		else if (!strcmp(what, "jumps"))
			even(8);
		else if (!strcmp(what, "asks"))
			syscall(SYS_getppid);
	}
	while (!strcmp(what, "endless"))
		asks_itself(1);
	printf("slow %ld\n", slow);
	for (int i = 0; i < 64; i++) {
		if (slots[i])
			printf("%ld %ld\n", 1L << i, slots[i]);
	}
	return 0;
}
