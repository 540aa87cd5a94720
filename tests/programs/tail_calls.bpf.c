/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* At each call of getppid() one of three programs in turn, which work 70, 20 and 10 % of the time.
 */
#define SEC(name) __attribute__((section(name), used))

typedef unsigned int __u32;
typedef unsigned long long __u64;

struct {
	int (*type)[3]; /* BPF_MAP_TYPE_PROG_ARRAY */
	int (*max_entries)[3];
	__u32 *key;
	__u32 *value;
} next SEC(".maps");

static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;

static __u32 turn;

/* A subprogram has code of its own: its time is its caller's. */
static __attribute__((noinline)) __u32 work(__u32 rounds)
{
	__u32 x = rounds;

	for (__u32 i = 0; i < 7000 && i < rounds; i++) {
		x = x * 1664525 + 1013904223;
		asm volatile("" : "+r"(x));
	}
	return x;
}

SEC("raw_tp/sys_enter")
int chain_entry(__u64 *ctx)
{
	if (ctx[1] != 110) /* getppid(), on x86_64 */
		return 0;
	turn++;
	bpf_tail_call(ctx, &next, turn % 3);
	return 0;
}

SEC("raw_tp/sys_enter")
int chain_most(void *ctx)
{
	return work(7000) & 1;
}

SEC("raw_tp/sys_enter")
int chain_some(void *ctx)
{
	return work(2000) & 1;
}

SEC("raw_tp/sys_enter")
int chain_least(void *ctx)
{
	return work(1000) & 1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
