/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* Takes some microseconds at every system call. */
#define SEC(name) __attribute__((section(name), used))

static volatile unsigned long long sink;

SEC("raw_tp/sys_enter")
int busy_in_bpf(void *ctx)
{
	unsigned long long x = sink | 1;

	for (int i = 0; i < 1000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	sink = x;
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
