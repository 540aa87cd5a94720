// Exceptions and destructors: landing pads and cold parts with frames of their own.
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

__attribute__((noinline)) static int thrower(int x)
{
	std::string text(static_cast<size_t>(x), 'x');

	if (x % 3 == 0)
		throw std::runtime_error(text);
	return static_cast<int>(text.size());
}

template <typename T> __attribute__((noinline)) static int catcher(T x)
{
	std::vector<std::string> kept(static_cast<size_t>(x), "kept");

	try {
		return thrower(static_cast<int>(x)) + static_cast<int>(kept.size());
	} catch (const std::runtime_error &error) {
		return -static_cast<int>(std::string(error.what()).size());
	}
}

int main(int argc, char **)
{
	std::printf("%d\n", catcher(argc) + catcher(argc + 1L) + catcher(static_cast<short>(argc + 2)));
	return 0;
}
