// SPDX-License-Identifier: (GPL-2.0 OR MIT)
// Stacks of a program's own: of the C library, of Boost, and the coroutines of C++, which have none.
#include <boost/context/fiber.hpp>
#include <coroutine>
#include <cstdlib>
#include <ctime>
#include <ucontext.h>

static volatile unsigned long sink;

__attribute__((noinline)) void leaf_of_fiber()
{
	for (int i = 0; i < 3000000; i++)
		sink += i;
}

__attribute__((noinline)) void middle_of_fiber()
{
	leaf_of_fiber();
	sink++;
}

static ucontext_t back, there;
static char stack[65536];

static void entry_of_ucontext()
{
	for (;;) {
		middle_of_fiber();
		swapcontext(&there, &back);
	}
}

struct task {
	struct promise_type {
		task get_return_object()
		{
			return {std::coroutine_handle<promise_type>::from_promise(*this)};
		}
		std::suspend_always initial_suspend() { return {}; }
		std::suspend_always final_suspend() noexcept { return {}; }
		void return_void() {}
		void unhandled_exception() {}
	};
	std::coroutine_handle<promise_type> handle;
};

__attribute__((noinline)) task coroutine_of_cxx()
{
	for (;;) {
		middle_of_fiber();
		co_await std::suspend_always{};
	}
}

int main(int, char **argv)
{
	time_t end = time(nullptr) + atoi(argv[2]);

	if (argv[1][0] == 'u') {
		getcontext(&there);
		there.uc_stack.ss_sp = stack;
		there.uc_stack.ss_size = sizeof(stack);
		makecontext(&there, entry_of_ucontext, 0);
		while (time(nullptr) < end)
			swapcontext(&back, &there);
	} else if (argv[1][0] == 'b') {
		boost::context::fiber fiber{[](boost::context::fiber &&caller) {
			for (;;) {
				middle_of_fiber();
				caller = std::move(caller).resume();
			}
			return std::move(caller);
		}};
		while (time(nullptr) < end)
			fiber = std::move(fiber).resume();
		_Exit(0);
	} else {
		auto task = coroutine_of_cxx();
		while (time(nullptr) < end)
			task.handle.resume();
	}
}
