/* Forks; parent and child are busy in functions of their own. Prints the child's id. */
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEFINE_SPIN(name)                                                                          \
	__attribute__((noinline)) static void name(void)                                           \
	{                                                                                          \
		volatile uint64_t x = 1;                                                           \
		clock_t end = clock() + CLOCKS_PER_SEC / 2;                                        \
                                                                                                   \
		do {                                                                               \
			for (int i = 0; i < 100000; i++)                                           \
				x = x * 31 + 7;                                                    \
		} while (clock() < end);                                                           \
	}

DEFINE_SPIN(busy_parent)
DEFINE_SPIN(busy_child)

int main(void)
{
	pid_t child = fork();

	if (child == 0) {
		busy_child();
		return 0;
	}
	busy_parent();
	waitpid(child, NULL, 0);
	printf("%d %d\n", getpid(), child);
	return 0;
}
