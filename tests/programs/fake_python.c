/*
 * Claims to be CPython 3.13 by what it exports, and has in its structures what no interpreter has.
 *
 * Usage: fake_python HOW SECONDS   seconds of CPU time
 *
 * cycle    a frame that is its own caller, of a function whose name has 2 GB
 * wild     pointers to anywhere, changed all the time by another thread
 * threads  threads without an end, none of them ours
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORTED __attribute__((visibility("default"), used))

#ifndef VERSION
#define VERSION 0x030d00f0
#endif
EXPORTED const unsigned long Py_Version = VERSION;

/* As _Py_DebugOffsets: by word, what lies where in the structures below. */
EXPORTED uint64_t _PyRuntime[128] = {
    [0] = 0x7970677562656478, /* xdebugpy */
    [1] = 0x030d00f0,
    [5] = 8 * 100, /* interpreters */
    [8] = 8,
    [9] = 16,
    [21] = 8, /* thread: next, frame, id */
    [23] = 16,
    [24] = 24,
    [29] = 8, /* frame: previous, executable, instruction, owner */
    [30] = 0,
    [31] = 16,
    [33] = 24,
    [35] = 24, /* code: file, name, qualified name, lines, first line, instructions */
    [36] = 32,
    [37] = 40,
    [38] = 48,
    [39] = 56,
    [43] = 64,
};
EXPORTED uint64_t PyCode_Type[64] = {[4] = 64};

static volatile uint64_t interpreter[8], thread[8], frame[16], code[32], text[32],
    file[32];
static volatile uint64_t sink;

static double cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

EXPORTED void PyEval_EvalFrameEx(void)
{
}

EXPORTED __attribute__((noinline)) void _PyEval_EvalFrameDefault(double seconds)
{
	double end = cpu_time() + seconds;

	while (cpu_time() < end) {
		for (int i = 0; i < 100000; i++)
			sink += i;
	}
}

static void link_up(void)
{
	_PyRuntime[100] = (uint64_t)interpreter;
	interpreter[2] = (uint64_t)thread;
	thread[2] = (uint64_t)frame;
	thread[3] = (uint64_t)pthread_self();
	frame[0] = (uint64_t)code;
	frame[1] = (uint64_t)frame;
	frame[2] = (uint64_t)code + 64;
	code[1] = (uint64_t)PyCode_Type;
	code[3] = (uint64_t)file;
	code[4] = code[5] = code[6] = (uint64_t)text;
	text[2] = 1ULL << 31;
	text[4] = 1 << 2 | 1 << 5 | 1 << 6;
	memcpy((void *)&text[5], "a_name_that_goes_on", 20);
	memcpy((void *)file, (void *)text, sizeof(file));
}

static void *change(void *unused)
{
	volatile uint64_t *words[] = {interpreter, thread, frame, code, text};
	const uint64_t values[] = {0,
				   1,
				   7,
				   (uint64_t)frame,
				   (uint64_t)code,
				   (uint64_t)text,
				   (uint64_t)thread,
				   0xffffffffffffffff,
				   0x7fffffffffff,
				   0xffff800000000000,
				   0x8000000000000001,
				   (uint64_t)&unused};
	unsigned int seed = 1;

	for (;;) {
		int at = rand_r(&seed) % 5, word = rand_r(&seed) % 8;

		/* Not what leads to the frames, so that there are some. */
		if (at > 1)
			words[at][word] = values[rand_r(&seed) % 12];
		if (rand_r(&seed) % 64 == 0)
			link_up();
	}
	return unused;
}

int main(int argc, char **argv)
{
	double seconds = argc == 3 ? atof(argv[2]) : 1;
	pthread_t other;

	link_up();
	if (argc == 3 && !strcmp(argv[1], "threads")) {
		thread[1] = (uint64_t)thread;
		thread[3] = 0;
	}
	if (argc == 3 && !strcmp(argv[1], "wild"))
		pthread_create(&other, NULL, change, NULL);
	_PyEval_EvalFrameDefault(seconds);
	return 0;
}
