/* Binds functions lazily, again and again: most of the time is ld.so's. Link with -z lazy. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FUNCTIONS 8

/* What the linker puts first: three words of ld.so's, then one for each function of the PLT. */
extern void *volatile _GLOBAL_OFFSET_TABLE_[] __attribute__((visibility("hidden")));

static volatile int sink = 'a';

__attribute__((noinline)) void bind(void)
{
	sink = toupper(sink);
	sink = tolower(sink);
	sink = abs(sink);
	sink = (int)labs(sink);
	sink += ffs(sink) & 1;
	sink = isalnum(sink) ? sink : 'a';
}

int main(void)
{
	clock_t end = clock() + 3 * CLOCKS_PER_SEC;
	void *unbound[FUNCTIONS];

	for (int i = 0; i < FUNCTIONS; i++)
		unbound[i] = _GLOBAL_OFFSET_TABLE_[3 + i];
	while (clock() < end) {
		for (int round = 0; round < 1000; round++) {
			bind();
			for (int i = 0; i < FUNCTIONS; i++)
				_GLOBAL_OFFSET_TABLE_[3 + i] = unbound[i];
		}
	}
	return 0;
}
