// Templates, lambdas, namespaces and operators that g++ -O2 inlines: inlined SECONDS
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace zoo {

template <typename T> struct Animal {
	T weight;
	bool operator<(const Animal &other) const
	{
		return weight * 7919 % 10007 < other.weight * 7919 % 10007;
	}
};

template <typename T, int N> __attribute__((noinline)) T feed(std::vector<Animal<T>> &animals)
{
	T sum{};

	std::sort(animals.begin(), animals.end());
	for (auto &animal : animals)
		animal.weight = animal.weight * 6364136223846793005ULL + N;
	std::for_each(animals.begin(), animals.end(), [&](const Animal<T> &a) { sum += a.weight; });
	return sum;
}

} // namespace zoo

namespace {

class Keeper {
public:
	__attribute__((noinline)) int visit(const std::string &name, int times)
	{
		for (int i = 0; i < times; i++)
			visits_[name + static_cast<char>('a' + i % 26)]++;
		return std::accumulate(visits_.begin(), visits_.end(), 0,
				       [](int sum, const auto &v) { return sum + v.second; });
	}

private:
	std::map<std::string, int> visits_;
};

} // namespace

int main(int argc, char **argv)
{
	const clock_t end = clock() + (argc > 1 ? atof(argv[1]) : 1) * CLOCKS_PER_SEC;
	std::vector<zoo::Animal<uint64_t>> animals(10000);
	Keeper keeper;
	uint64_t sum = 0;

	for (size_t i = 0; i < animals.size(); i++)
		animals[i].weight = i;
	while (clock() < end) {
		sum += zoo::feed<uint64_t, 3>(animals);
		sum += keeper.visit("a name too long to be stored in place", 5000);
	}
	return sum == 42;
}
