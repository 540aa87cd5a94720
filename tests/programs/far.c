/* Code without call frame information, 400,000 bytes behind all that has some. It keeps a frame
 * pointer. */
#include <time.h>

volatile unsigned long sink;

__asm__(".section .text.far, \"ax\"\n"
	"	.skip 400000, 0xcc\n"
	".globl far_away\n"
	".type far_away, @function\n"
	"far_away:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	mov $20000000, %ecx\n"
	"1:	dec %ecx\n"
	"	jnz 1b\n"
	"	pop %rbp\n"
	"	ret\n"
	".size far_away, .-far_away\n"
	".text\n");
extern void far_away(void);

__attribute__((noinline)) void calls_far_away(void)
{
	far_away();
	sink++;
}

int main(void)
{
	time_t end = time(NULL) + 60;

	while (time(NULL) < end)
		calls_far_away();
	return 0;
}
