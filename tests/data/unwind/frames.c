/* Functions whose frames a table must describe: each shape that compilers give them. */
#include <alloca.h>
#include <stdio.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))

NOINLINE int use(volatile char *bytes, int size)
{
	int i, sum = 0;

	for (i = 0; i < size; i++)
		sum += bytes[i];
	return sum;
}

NOINLINE int leaf(int x)
{
	return x * 3;
}

NOINLINE int with_alloca(int size)
{
	char *bytes = alloca(size);

	memset(bytes, size, size);
	return use(bytes, size);
}

NOINLINE int with_vla(int size)
{
	char bytes[size];

	memset(bytes, 1, size);
	return use(bytes, size) + use(bytes, size / 2);
}

/* The stack pointer is rounded down: the CFA is saved, not computed. */
NOINLINE int with_aligned_local(int size)
{
	__attribute__((aligned(64))) char bytes[256];

	memset(bytes, 2, sizeof(bytes));
	return use(bytes, size) + leaf(size);
}

/* Both, and arguments on the stack: GCC keeps the CFA in r10. */
NOINLINE int with_aligned_vla(int a, int b, int c, int d, int e, int f, int g, int h)
{
	__attribute__((aligned(64))) char bytes[64];
	char more[a];

	memset(bytes, g, sizeof(bytes));
	memset(more, h, a);
	return use(bytes, b) + use(more, a) + c + d + e + f;
}

/* More than 16 bits. */
NOINLINE int with_large_frame(int size)
{
	volatile char bytes[540080];

	bytes[size] = 1;
	return use(bytes, 4) + bytes[size];
}

int main(int argc, char **argv)
{
	(void)argv;
	printf("%d\n", with_alloca(argc + 8) + with_vla(argc + 16) + with_aligned_local(argc) +
			       with_aligned_vla(argc, 1, 2, 3, 4, 5, 6, 7) + with_large_frame(argc));
	return 0;
}
