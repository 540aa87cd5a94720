// Exceptions thrown through twenty frames: libgcc's own unwinder is what takes the time.
#include <cstdlib>
#include <ctime>
#include <string>

static volatile int sink;

struct Guard {
	int depth;
	~Guard() { sink = sink + depth; }
};

__attribute__((noinline)) void thrower(int depth)
{
	Guard guard{depth};
	if (depth == 0)
		throw std::string("thrown");
	thrower(depth - 1);
	sink = sink + 1;
}

int main()
{
	const clock_t end = CLOCKS_PER_SEC * (getenv("SECONDS") ? atoi(getenv("SECONDS")) : 2);
	while (clock() < end) {
		try {
			thrower(20);
		} catch (const std::string &text) {
			sink = sink + text.size();
		}
	}
}
