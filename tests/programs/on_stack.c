// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* Calls on other stacks and back, as OCaml's runtime does: a fiber in the program's data calls a
 * function on the system's stack. The assembly says with its frames where the caller is. */
#include <stdlib.h>
#include <time.h>

#define STACK 65536

void on_stack(void *top, void (*function)(void));
__asm__(".globl on_stack\n"
	".type on_stack,@function\n"
	"on_stack:\n"
	"	.cfi_startproc\n"
#ifdef MARKED
	"	.cfi_signal_frame\n"
#endif
	"	mov %rsp,-16(%rdi)\n"
	"	lea -16(%rdi),%rsp\n"
	"	.cfi_escape 0x0f,5,0x77,0,0x06,0x23,8\n" /* CFA = *(rsp) + 8 */
	"	call *%rsi\n"
	"	mov (%rsp),%rsp\n"
	"	.cfi_def_cfa 7,8\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size on_stack,.-on_stack\n");

static volatile unsigned long sink;
static char fiber[STACK] __attribute__((aligned(16)));
static void *system_stack;

__attribute__((noinline)) void leaf(void)
{
	for (int i = 0; i < 1000000; i++)
		sink += i;
}

__attribute__((noinline)) void on_the_system(void)
{
	leaf();
	sink++;
}

__attribute__((noinline)) void on_the_fiber(void)
{
	on_stack(system_stack, on_the_system);
	sink++;
}

int main(int argc, char **argv)
{
	char room[STACK] __attribute__((aligned(16)));
	clock_t end = clock() + CLOCKS_PER_SEC * atoi(argv[1]);

	(void)argc;
	__asm__ volatile("" : : "r"(room) : "memory");
	system_stack = room + STACK;
	while (clock() < end)
		on_stack(fiber + STACK, on_the_fiber);
	return 0;
}
