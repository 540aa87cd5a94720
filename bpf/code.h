/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * What can be told of an address from the machine code around it: whether a call has left it on the
 * stack, whether a stack begins there, whether it is a signal trampoline. Any word of a stack may
 * look like an address of code; few of those lie behind a call.
 */
#ifndef CODE_H
#define CODE_H

static __always_inline bool read_word(__u64 *into, __u64 address)
{
	return !bpf_probe_read_user(into, sizeof(*into), (const void *)address);
}

/* One round of a multiplicative hash; the constant is 2^64 divided by the golden ratio. */
static __always_inline __u64 hash_step(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

/* What goes before an address. */
enum before {
	BEFORE_UNREADABLE,
	BEFORE_OTHER,
	BEFORE_CALL,
};

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)

static __always_inline enum before what_is_before(__u64 ip, __u64 *target)
{
	__u32 code;

	*target = 0;
	if (bpf_probe_read_user(&code, sizeof(code), (const void *)(ip - sizeof(code))))
		return BEFORE_UNREADABLE;
	/* bl; blr; blr with authentication */
	if ((code & 0xfc000000) == 0x94000000 || (code & 0xfffffc1f) == 0xd63f0000 ||
	    (code & 0xfefff800) == 0xd63f0800)
		return BEFORE_CALL;
	return BEFORE_OTHER;
}

#else

/* `target` is what a call with a constant distance calls, and otherwise 0. */
static __always_inline enum before what_is_before(__u64 ip, __u64 *target)
{
	__u8 code[8];

	*target = 0;
	if (bpf_probe_read_user(code, sizeof(code), (const void *)(ip - sizeof(code))))
		return BEFORE_UNREADABLE;
	if (code[3] == 0xe8) {
		*target = ip + *(__s32 *)&code[4];
		return BEFORE_CALL;
	}
	/* call *…: 2 to 7 bytes */
	for (int i = 1; i < 7; i++) {
		if (i != 3 && code[i] == 0xff && (code[i + 1] & 0x38) == 0x10)
			return BEFORE_CALL;
	}
	return BEFORE_OTHER;
}

#endif

/* Whether the instruction before `ip` is a call, as far as its bytes tell and can be read. */
static __always_inline bool is_behind_call(__u64 ip)
{
	__u64 target;

	return what_is_before(ip, &target) != BEFORE_OTHER;
}

/* Whether the code is that of a signal trampoline. */
static __always_inline bool is_sigreturn(__u64 ip)
{
	__u8 code[16] = {};

	return !bpf_probe_read_user(code, SIGRETURN_BYTES, (const void *)ip) &&
	       *(__u64 *)code == SIGRETURN_CODE && code[8] == SIGRETURN_LAST;
}

#define ROOT_BEFORE 32
#define ROOT_BEHIND 32

/*
 * Whether the return address `ip`, in code that no table describes, is in the first function of a
 * stack. Before it calls, that of a program clears its frame pointer and aligns its stack:
 * xor %ebp,%ebp; …; and $-16,%rsp. Any function may do the one or the other. Or it ends with what
 * no program lives to execute: syscall or call, then hlt. So do musl's `_start` and `__clone`, and
 * what the coroutines of Boost.Context and of makecontext() return to.
 */
__noinline int is_root(struct walk *walk, __u64 ip)
{
#if !defined(__TARGET_ARCH_arm64) && !defined(__aarch64__)
	bool is_cleared = false;
	__u8 *code;

	if (!walk)
		return false;
	code = &walk->object[OBJECT_BYTES / 2]; /* scratch space: there is little on the stack */
	if (bpf_probe_read_user(code, ROOT_BEFORE + ROOT_BEHIND, (const void *)(ip - ROOT_BEFORE)))
		return false;
	for (int i = 0; i < ROOT_BEFORE - 2; i++) {
		if (code[i] == 0x31 && code[i + 1] == 0xed)
			is_cleared = true;
		if (is_cleared && code[i] == 0x83 && code[i + 1] == 0xe4 && code[i + 2] == 0xf0)
			return true;
	}
	for (int i = ROOT_BEFORE + 2; i < ROOT_BEFORE + ROOT_BEHIND; i++) {
		if (code[i] != 0xf4)
			continue;
		if (code[i - 2] == 0x0f && code[i - 1] == 0x05)
			return true;
		if (i >= ROOT_BEFORE + 5 && code[i - 5] == 0xe8)
			return true;
	}
#endif
	return false;
}

#define BLOCK_BYTES 64
#define MOST_BLOCKS 32

struct search {
	struct walk *walk; /* whose scratch space holds the block: there is little on the stack */
	__u64 ip;
	__u64 is_found;
};

/* One block of code, backwards: mov %rsp,%rbp before a pop %rbp or leave that goes on with ret or
 * jmp. 1 ends the search. */
static long search_block(__u32 i, void *data)
{
	struct search *search = data;
	__u8 *code = search->walk->object;

	if (bpf_probe_read_user(code, BLOCK_BYTES + 1,
				(const void *)(search->ip - (i + 1) * BLOCK_BYTES)))
		return 1;
	for (int at = BLOCK_BYTES - 1; at >= 0; at--) {
		if ((code[at] == 0x5d || code[at] == 0xc9) &&
		    (code[at + 1] == 0xc3 || code[at + 1] == 0xe9))
			return 1;
		if (code[at] == 0x89 && code[at + 1] == 0xe5) {
			search->is_found = 1;
			return 1;
		}
	}
	return 0;
}

/*
 * Whether the code around an address shows that its function keeps a frame pointer: that was set
 * before, and nothing has given it back in between. Otherwise the register may still be that of a
 * function further up, and all between the two would be missing.
 */
__noinline int keeps_frame_pointer(struct walk *walk, __u64 ip)
{
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	return true; /* the ABI has all functions keep it */
#else
	struct search search = {.walk = walk, .ip = ip};

	if (!walk)
		return false;
	bpf_loop(MOST_BLOCKS, search_block, &search, 0);
	return search.is_found;
#endif
}

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define ZERO_ENDS_CHAIN 1 /* of frame pointers */
#else
#define ZERO_ENDS_CHAIN 0 /* whose register may hold any number */
#endif

#endif
