// A program whose names are somewhere else: in a debug file, or in symbols without type and size. Takes CPU
// seconds. -DLEAF names the function that computes, -DASSEMBLY writes it in assembly.
#include <stdlib.h>
#include <time.h>

#ifndef LEAF
#define LEAF leaf_elsewhere
#endif

#ifdef ASSEMBLY
__asm__(".text\n.globl leaf_elsewhere\nleaf_elsewhere:\n.cfi_startproc\nmov $1000000, %eax\n"
        "1: dec %eax\njnz 1b\nret\n.cfi_endproc\n");
void leaf_elsewhere(void);
#else
static volatile unsigned long sink;

static __attribute__((noinline, noclone)) void LEAF(void)
{
	for (int i = 0; i < 1000000; i++)
		sink += i;
}
#endif

static __attribute__((noinline, noclone)) void middle_elsewhere(void)
{
	LEAF();
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 1;

	while ((double)clock() / CLOCKS_PER_SEC < seconds)
		middle_elsewhere();
	return 0;
}
