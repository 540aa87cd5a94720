/*
 * Calls functions of assembly whose symbols have no size, and the C function behind one of them, which has no symbol
 * once the program is stripped (link it with -rdynamic, which keeps those of others). x86-64.
 *
 * Usage: unsized SECONDS labels|hidden	of CPU time
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

unsigned unsized_before(unsigned x);
unsigned unsized_work(unsigned x);
unsigned sized_work(unsigned x);

__asm__(".text\n"
	".globl unsized_work\n"
	"unsized_work:\n"
	"	mov $300000, %eax\n"
	"unsized_work.loop:\n"
	"	dec %eax\n"
	"	jnz unsized_work.loop\n"
	"	ret\n"
	".globl sized_work\n"
	".type sized_work, @function\n"
	"sized_work:\n"
	"	.cfi_startproc\n"
	"	mov $300000, %eax\n"
	"inner_label:\n"
	"	dec %eax\n"
	"	jnz inner_label\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size sized_work, . - sized_work\n"
	".globl unsized_before\n"
	"unsized_before:\n"
	"	mov %edi, %eax\n"
	"	ret\n");

static __attribute__((noinline, noclone)) unsigned hidden_work(unsigned x)
{
	for (int i = 0; i < 300000; i++)
		x = x * 1664525 + 1013904223;
	__asm__ volatile("");
	return x;
}

__attribute__((noinline, noclone)) unsigned calls_hidden(unsigned x)
{
	x = hidden_work(unsized_before(x)) + 1;
	__asm__ volatile("");
	return x;
}

int main(int argc, char **argv)
{
	clock_t end = clock() + (argc > 1 ? atof(argv[1]) : 1) * CLOCKS_PER_SEC;
	volatile unsigned sink = 1;

	while (clock() < end) {
		if (argc > 2 && !strcmp(argv[2], "labels")) {
			sink = unsized_work(sink);
			sink = sized_work(sink);
		} else {
			sink = calls_hidden(sink);
		}
	}
	return 0;
}
