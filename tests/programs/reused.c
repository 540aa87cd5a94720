/*
 * Children that all have one process id, each as soon as the one before it is gone. They are called
 * "even" and "odd", and so are their functions.
 *
 * Usage: reused CHILDREN SECONDS	prints the CPU time of all; exits with 2 if ids cannot be chosen
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static inline __attribute__((always_inline)) void spin(double length)
{
	double end = cpu_time() + length;

	while (cpu_time() < end)
		for (int i = 0; i < 10000; i++)
			__asm__ volatile("");
}

__attribute__((noinline)) void work_of_even(double length)
{
	spin(length);
}

__attribute__((noinline)) void work_of_odd(double length)
{
	spin(length);
	__asm__ volatile("");
}

static pid_t fork_as(pid_t id)
{
	struct clone_args args = {
	    .exit_signal = SIGCHLD,
	    .set_tid = (uintptr_t)&id,
	    .set_tid_size = 1,
	};

	return syscall(SYS_clone3, &args, sizeof(args));
}

int main(int argc, char **argv)
{
	double length = atof(argv[2]);
	struct rusage usage;
	pid_t id = fork(), child;

	if (!id)
		_exit(0);
	waitpid(id, NULL, 0);
	for (int i = 0; i < atoi(argv[1]); i++) {
		child = fork_as(id);
		if (child < 0)
			return errno == EEXIST ? 3 : 2;
		if (!child) {
			prctl(PR_SET_NAME, i % 2 ? "odd" : "even");
			if (i % 2)
				work_of_odd(length);
			else
				work_of_even(length);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	getrusage(RUSAGE_CHILDREN, &usage);
	printf("%.6f\n", usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
			     (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	return 0;
}
