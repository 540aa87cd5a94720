// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * How long calls take: of a system call, of a function of a program, or of one
 * of the kernel's. One program runs where a call begins and one where it
 * returns; the two find each other in the thread's own list of calls that are
 * open, innermost last. Every call is counted when it begins, and ends in one
 * of these:
 *
 *   calls = returned + left + deep + open
 *
 * A call of a program's function is known by the place of its return address on
 * the stack. Stacks grow downwards: a call that begins or returns above the
 * places of others shows that those were left without a return, by longjmp() or
 * an exception. (The kernel takes its return probes off by the same rule.) A
 * function that ends in a jump to itself begins a call in the place of the one
 * that is open: then the return address there is already the probe's. The
 * kernel times no more than MAX_URETPROBE_DEPTH calls of a thread at once;
 * deeper ones are `deep`.
 *
 * The kernel's own functions always return, but interrupts run on other stacks:
 * so nothing is concluded from the order of places there.
 */
const volatile __u32 latency_syscall = 0; /* its number */
const volatile __u64 slower_than_ns = ~0ULL;
const volatile bool latency_by_tables = false;
const volatile bool of_kernel = false;

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct open_calls);
} open_calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by user space */
	__type(key, struct latency_key);
	__type(value, struct latency);
} latencies SEC(".maps");

/* Runs of our programs, also of those that had nothing to do; and calls of what
 * was asked for. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} latency_runs SEC(".maps");

/* CPUs whose space for a stack is in use. Programs of uprobes can be preempted,
 * and their space may not be used by others then. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by user space */
	__type(key, __u32);
	__type(value, __u32);
} walking SEC(".maps");

const struct latency_key *abi_latency_key __attribute__((unused));
const struct latency *abi_latency __attribute__((unused));

static const __u32 latency_space = CPU_STATE_LATENCY;
static const struct latency no_calls = {}; /* too large for a program's stack */

static const __u32 asked_for = 1;

static __always_inline void count_run(const __u32 *which)
{
	__u64 *runs = bpf_map_lookup_elem(&latency_runs, which);

	if (runs)
		__sync_fetch_and_add(runs, 1);
}

/* Where there is no room for another process, it shares the entry that user
 * space has made. */
static __always_inline struct latency *latency_of(struct task_struct *task)
{
	struct latency_key key = {
	    .tgid = tgid_of(task),
	    .start = task->group_leader->start_boottime,
	};
	struct latency *found = bpf_map_lookup_elem(&latencies, &key);
	struct latency_key rest = {};

	if (found)
		return found;
	bpf_map_update_elem(&latencies, &key, &no_calls, BPF_NOEXIST);
	found = bpf_map_lookup_elem(&latencies, &key);
	return found ? found : bpf_map_lookup_elem(&latencies, &rest);
}

/* The entry of an index below MAX_OPEN_CALLS, which the verifier sees by its mask. */
static __always_inline struct open_call *call_at(struct open_calls *open, __u64 at)
{
	barrier_var(at);
	return &open->call[at & (MAX_OPEN_CALLS - 1)];
}

/* Takes calls off that were left, as a thing at `place` shows. */
static __always_inline void leave_calls(struct open_calls *open, struct latency *latency,
					__u64 place, bool and_there)
{
	struct open_call *last;

	for (int i = 0; i < MAX_OPEN_CALLS; i++) {
		last = call_at(open, open->calls - 1);
		if (!open->calls || last->place > place || (last->place == place && !and_there))
			break;
		open->calls--;
		__sync_fetch_and_add(&latency->left, 1);
	}
}

static __always_inline void call_begins(__u64 place, bool is_jump)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct open_calls *open;
	struct open_call *call;
	struct latency *latency;
	__u32 at;

	count_run(&asked_for);
	if (!wanted(task))
		return;
	latency = latency_of(task);
	if (!latency)
		return; /* cannot be: the last entry is there */
	__sync_fetch_and_add(&latency->calls, 1);
	read_comm(task->group_leader, latency->comm);
	open = bpf_task_storage_get(&open_calls, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!open) {
		__sync_fetch_and_add(&latency->deep, 1);
		return;
	}
	if (!of_kernel) {
		leave_calls(open, latency, place, !is_jump);
	} else if (open->calls && call_at(open, open->calls - 1)->place == place) {
		open->calls--;
		__sync_fetch_and_add(&latency->left, 1);
	}
	at = open->calls;
	if (at >= MAX_OPEN_CALLS) {
		__sync_fetch_and_add(&latency->deep, 1);
		return;
	}
	open->calls = at + 1;
	call = call_at(open, at);
	call->place = place;
	/* Last: what is measured is the call, and as little of this as can be. */
	call->start_ns = bpf_ktime_get_ns();
}

static __always_inline __u32 slot_of(__u64 ns)
{
	__u32 slot = 0;

	for (__u32 bits = 32; bits; bits /= 2) {
		if (ns >> bits) {
			ns >>= bits;
			slot += bits;
		}
	}
	return slot < LATENCY_SLOTS ? slot : LATENCY_SLOTS - 1;
}

/* Of a call that has just returned, whose caller goes on at the registers of
 * the current task. */
static __always_inline enum outcome count_slow(void *ctx, struct task_struct *task,
					       struct cpu_state *cpu, __u64 ns)
{
	struct stack_body *body = &cpu->body;
	struct pt_regs *saved;
	enum outcome user;

	begin_body(body, task, KIND_LATENCY);
	body->outcome = OUTCOME_COMPLETE;
	if (of_kernel && kernel_stacks)
		body->outcome = collect_kernel_stack(ctx, body);
	if (has_user_stack(task, body)) {
		saved = (struct pt_regs *)bpf_task_pt_regs(task);
		saved_user_registers(saved, &cpu->walk.regs);
		cpu->walk.is_32_bit = saved_32_bit(saved);
		saved_leaf(saved, cpu->walk.leaf);
		/* Behind a call, or behind the instruction of a system call. */
		cpu->walk.is_return_address = !of_kernel || in_system_call(saved);
		user = walk_user_stack(task, cpu, latency_by_tables);
		if (body->outcome == OUTCOME_COMPLETE || user == OUTCOME_USER_DUMPED)
			body->outcome = user;
	}
	return count(cpu, body, ns, latency_by_tables);
}

static __always_inline void keep_slow(void *ctx, struct task_struct *task, struct latency *latency,
				      __u64 ns)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &latency_space);
	__u32 id = bpf_get_smp_processor_id();
	__u64 outcome;

	__sync_fetch_and_add(&latency->slow, 1);
	if (!cpu || bpf_map_update_elem(&walking, &id, &zero, BPF_NOEXIST)) {
		__sync_fetch_and_add(&latency->slow_lost, 1);
		return;
	}
	outcome = count_slow(ctx, task, cpu, ns);
	barrier_var(outcome);
	if (outcome < OUTCOME_MAX)
		cpu->outcomes[outcome]++;
	bpf_map_delete_elem(&walking, &id);
}

static __always_inline void call_returns(void *ctx, __u64 place)
{
	__u64 now = bpf_ktime_get_ns(), ns;
	struct task_struct *task = bpf_get_current_task_btf();
	struct open_calls *open = bpf_task_storage_get(&open_calls, task, NULL, 0);
	struct open_call *last;
	struct latency *latency;

	/* It began before we looked, or in the parent of a forked process. */
	if (!open || !open->calls)
		return;
	latency = latency_of(task);
	if (!latency)
		return;
	if (!of_kernel)
		leave_calls(open, latency, place, false);
	last = call_at(open, open->calls - 1);
	if (!open->calls || last->place != place)
		return;
	open->calls--;
	ns = now - last->start_ns;
	__sync_fetch_and_add(&latency->returned, 1);
	__sync_fetch_and_add(&latency->total_ns, ns);
	__sync_fetch_and_add(&latency->slots[slot_of(ns)], 1);
	if (ns > latency->longest_ns)
		latency->longest_ns = ns;
	if (ns >= slower_than_ns)
		keep_slow(ctx, task, latency, ns);
}

/*
 * System calls. A thread is in one at a time. Their numbers are those of 64-bit
 * programs; those of 32-bit ones mean others.
 */
static __always_inline bool is_asked_for(long number)
{
	return number == latency_syscall && !is_compat(bpf_get_current_task_btf());
}

SEC("tp_btf/sys_enter")
int BPF_PROG(syscall_begins, struct pt_regs *regs, long number)
{
	count_run(&zero);
	if (is_asked_for(number))
		call_begins(0, false);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(syscall_returns, struct pt_regs *regs, long result)
{
	count_run(&zero);
	if (is_asked_for(syscall_number(regs)))
		call_returns(ctx, 0);
	return 0;
}

/* Functions of programs. */
SEC("uprobe")
int function_begins(struct pt_regs *ctx)
{
	__u64 place = PLACE_AT_ENTRY(ctx), caller = 0;

	count_run(&zero);
	bpf_probe_read_user(&caller, sizeof(caller), (void *)place);
	call_begins(place, caller && caller == uretprobe_trampoline(current_task()));
	return 0;
}

SEC("uretprobe")
int function_returns(struct pt_regs *ctx)
{
	count_run(&zero);
	call_returns(ctx, PLACE_AT_RETURN(ctx));
	return 0;
}

/* Functions of the kernel. The trampoline gives both programs of a call the
 * same context. */
SEC("fentry")
int BPF_PROG(kernel_begins)
{
	count_run(&zero);
	call_begins((__u64)ctx, false);
	return 0;
}

SEC("fexit")
int BPF_PROG(kernel_returns)
{
	count_run(&zero);
	call_returns(ctx, (__u64)ctx);
	return 0;
}

SEC("kprobe")
int kernel_begins_by_kprobe(struct pt_regs *ctx)
{
	count_run(&zero);
	call_begins(PLACE_AT_ENTRY(ctx), false);
	return 0;
}

SEC("kretprobe")
int kernel_returns_by_kprobe(struct pt_regs *ctx)
{
	count_run(&zero);
	call_returns(ctx, PLACE_AT_RETURN(ctx));
	return 0;
}
