/* Two leaves and their caller, to be linked in many ways: one of C and one of assembly. */
#include <stdlib.h>
#include <time.h>

volatile unsigned long sink;

__asm__(".text\n"
	".globl of_assembly\n"
	".type of_assembly, @function\n"
	"of_assembly:\n"
	".cfi_startproc\n"
	"	mov $20000000, %ecx\n"
	"1:	dec %ecx\n"
	"	jnz 1b\n"
	"	ret\n"
	".cfi_endproc\n"
	".size of_assembly, .-of_assembly\n");
extern void of_assembly(void);

__attribute__((noinline)) void of_c(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sink += i;
}

static __attribute__((noinline)) void in_the_middle(void)
{
	of_c(2000000);
	sink++;
	of_assembly();
	sink++;
}

int main(int argc, char **argv)
{
	clock_t end = clock() + CLOCKS_PER_SEC * (argc > 1 ? atoi(argv[1]) : 2);

	while (clock() < end)
		in_the_middle();
	return 0;
}
