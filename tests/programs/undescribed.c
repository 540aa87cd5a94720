// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* Assembly without call frame information, as in codecs: it uses rbp as it likes. Here rbp points at
 * a list on the stack, whose entries look like frames: a pointer to the next, and a function. */
#include <stdlib.h>
#include <time.h>

static volatile unsigned long sink;

struct entry {
	struct entry *next;
	void (*function)(void);
};

__attribute__((noinline)) void never_called(void)
{
	sink += 3;
}

void undescribed(struct entry *list, long rounds);
__asm__(".globl undescribed\n"
	".type undescribed,@function\n"
	"undescribed:\n"
	"	push %rbp\n"
	"	mov %rdi,%rbp\n"
	"1:	mov 8(%rbp),%rax\n"
	"	dec %rsi\n"
	"	jnz 1b\n"
	"	pop %rbp\n"
	"	ret\n"
	".size undescribed,.-undescribed\n");

/* The same without a frame. */
void frameless(long rounds);
__asm__(".globl frameless\n"
	".type frameless,@function\n"
	"frameless:\n"
	"1:	dec %rdi\n"
	"	jnz 1b\n"
	"	ret\n"
	".size frameless,.-frameless\n");

__attribute__((noinline)) void caller(void)
{
	struct entry last = {0, never_called}, first = {&last, never_called};

	__asm__ volatile("" : : "r"(&first), "r"(&last) : "memory");
	undescribed(&first, 10000000);
	frameless(10000000);
	sink++;
}

int main(int argc, char **argv)
{
	clock_t end = clock() + CLOCKS_PER_SEC * atoi(argv[1]);

	(void)argc;
	while (clock() < end)
		caller();
	return 0;
}
