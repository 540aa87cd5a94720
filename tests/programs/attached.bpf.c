/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* A program for each place that network traffic passes, which count into two maps, one of them shared;
 * or, with -DPROBES, for the ways to hook a kernel function, which not every kernel has. */
#define SEC(name) __attribute__((section(name), used))

typedef unsigned int u32;
typedef unsigned long long u64;

#define MAP_OF(kind, entries)               \
	struct {                            \
		int (*type)[kind];          \
		int (*max_entries)[entries]; \
		u32 *key;                   \
		u64 *value;                 \
	}

MAP_OF(2, 1000) shared SEC(".maps"); /* BPF_MAP_TYPE_ARRAY */
MAP_OF(1, 5000) own SEC(".maps");    /* BPF_MAP_TYPE_HASH */

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;

static void count(void *map)
{
	u32 key = 0;
	u64 *value = map_lookup(map, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

#ifndef PROBES
SEC("tc")
int classifies_what_comes_in(void *ctx)
{
	count(&shared);
	count(&own);
	return -1; /* TC_ACT_UNSPEC */
}

SEC("xdp")
int passes_on(void *ctx)
{
	count(&shared);
	return 2; /* XDP_PASS */
}

SEC("cgroup_skb/egress")
int lets_out(void *ctx)
{
	count(&shared);
	return 1;
}
#else
SEC("fentry/__do_sys_getppid")
int on_entry(void *ctx)
{
	count(&own);
	return 0;
}

SEC("kprobe/__do_sys_getppid")
int on_probe(void *ctx)
{
	count(&own);
	return 0;
}
#endif

char LICENSE[] SEC("license") = "Dual MIT/GPL";
