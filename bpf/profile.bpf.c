// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * The sampler. One perf event per CPU runs `on_cpu` at the sampling frequency; it walks the kernel
 * and the user stack and counts them in the kernel. User space sees a stack's frames once, through
 * a ring buffer, and its counts when it swaps the counts map.
 */
#include <linux/types.h>
#include <stdbool.h>

/* What <linux/bpf.h> would bring, were it not for the kernel's own headers on some machines. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"
#include "profile.h"
#include "registers.h"
#include "ids.h"
#include "cgroups.h"
#include "window.h"
#include "tables.h"
#include "codes.h"
#include "uretprobes.h"

/* Off where V8 is not looked for: its builtins have no rows and keep frame pointers, but have them
 * in parts from which that cannot be seen. */
const volatile bool doubts_frame_pointers = true;

static __always_inline __u64 initial_stack(void)
{
	return READ(current_task(), mm, start_stack);
}

#include "walk.h"

const volatile __u32 filter = FILTER_NONE; /* enum filter */
const volatile bool user_stacks = true;
const volatile bool kernel_stacks = true;
const volatile bool include_idle = false;
const volatile bool kernel_walks_user = false; /* where reading user memory is not safe */
const volatile __u32 max_kernel_frames = 127;  /* of perf_event_max_stack; at most MAX_… */
const volatile __u64 time_slot_ns = 0;	       /* how exactly it is kept when; 0: not at all */
const volatile __u64 period_ns = 0; /* time that one sample stands for; 0: the event tells */

struct counts {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by user space */
	__type(key, struct counts_key);
	__type(value, struct counts_value);
} counts_a SEC(".maps"), counts_b SEC(".maps");

/* The map that is counted into now. User space swaps in the other, which is empty, and drains this
 * one: the swap waits until no program runs that may still hold it, so no count is lost. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
	__array(values, struct counts);
} current_counts SEC(".maps") = {
    .values = {&counts_a},
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* set by user space */
} bodies SEC(".maps");

/* Stacks of young processes: struct stack_dump. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* set by user space */
} dumps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CPU_STATES);
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpu_states SEC(".maps");

/* Process or thread ids that are recorded, by the meaning of `filter`, and the start_boottime of
 * who has the id: see belongs_to(). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by user space */
	__type(key, __u32);
	__type(value, __u64);
} targets SEC(".maps");

/* Pointers to the shared types, so that BTF, and so the generated Rust, has them in full. */
const enum limits *abi_limits __attribute__((unused));
const struct counts_key *abi_counts_key __attribute__((unused));
const struct counts_value *abi_counts_value __attribute__((unused));
const struct stack_dump *abi_stack_dump __attribute__((unused));
const enum step *abi_step __attribute__((unused));
const enum cfa *abi_cfa __attribute__((unused));
const enum saved_fp *abi_saved_fp __attribute__((unused));
const struct cpu_state *abi_cpu_state __attribute__((unused));
const enum cpu_state_index *abi_cpu_state_index __attribute__((unused));
const enum outcome *abi_outcome __attribute__((unused));
const enum kind *abi_kind __attribute__((unused));
const enum has_table *abi_has_table __attribute__((unused));
const enum filter *abi_filter __attribute__((unused));
const struct unwind_run *abi_unwind_run __attribute__((unused));
const struct unwind_chunk *abi_unwind_chunk __attribute__((unused));
const enum runtime *abi_runtime __attribute__((unused));
const enum script_missing *abi_script_missing __attribute__((unused));
const enum python_runs *abi_python_runs __attribute__((unused));
const enum python_lines *abi_python_lines __attribute__((unused));
const struct code_record *abi_code_record __attribute__((unused));

#include "send_codes.h"

static const __u32 zero = 0;

/*
 * Entries by id outlive their processes: the last hook of a process runs a grace period after its
 * id was free to be given away. So an entry names its owner by the time of its start, and means
 * nothing to others. Who has an id that user space asked for is the first to be seen with it.
 */
static __always_inline bool belongs_to(__u64 *owner, __u64 start)
{
	if (!*owner)
		*owner = start;
	return *owner == start;
}

/* Whether a task is among the targets. */
static __always_inline bool is_target(struct task_struct *task)
{
	__u32 id = filter == FILTER_TID ? tid_of(task) : tgid_of(task);
	__u64 *owner = bpf_map_lookup_elem(&targets, &id);

	if (!owner)
		return false;
	if (filter == FILTER_TID)
		return belongs_to(owner, READ(task, start_boottime));
	return belongs_to(owner, READ(task, group_leader, start_boottime));
}

/* Whether the current task is recorded. */
static __always_inline bool wanted(struct task_struct *task)
{
	if (filter != FILTER_NONE && !is_target(task))
		return false;
	return !cgroup_id || in_cgroup(task);
}

static __always_inline void read_comm(struct task_struct *task, __u64 comm[2])
{
	if (HAS_HELPER(get_current_task_btf)) {
		comm[0] = ((__u64 *)task->comm)[0];
		comm[1] = ((__u64 *)task->comm)[1];
	} else {
		bpf_core_read(comm, sizeof(task->comm), &task->comm);
	}
}

/* A number that changes when a process maps or unmaps code. Where the kernel counts neither, it is
 * told apart by how much code there is. */
static __always_inline __u64 code_version(struct task_struct *task)
{
	struct mm_struct *mm = READ(task, mm);

	if (bpf_core_field_exists(struct mm_struct___seqcount, mm_lock_seq.sequence))
		return ((struct mm_struct___seqcount *)mm)->mm_lock_seq.sequence;
	if (bpf_core_field_exists(struct mm_struct___number, mm_lock_seq))
		return ((struct mm_struct___number *)mm)->mm_lock_seq;
	if (bpf_core_field_exists(struct mm_struct___vmacache, vmacache_seqnum))
		return READ(mm, exec_vm) +
		       (READ((struct mm_struct___vmacache *)mm, vmacache_seqnum) << 32);
	return READ(mm, exec_vm);
}

/*
 * What a stack's names depend on beside its addresses: which process has the id, which program it
 * executes, its name, and the code that is mapped. Stacks of equal ids and state have equal names.
 */
static __always_inline __u32 process_state(struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader);
	__u64 hash = hash_step(READ(task, self_exec_id), READ(leader, start_boottime));
	__u64 comm[2];

	read_comm(leader, comm);
	hash = hash_step(hash_step(hash, comm[0]), comm[1]);
	if (READ(task, mm))
		hash = hash_step(hash, code_version(task));
	return hash ^ (hash >> 32);
}

static __always_inline enum outcome collect_kernel_stack(void *ctx, struct stack_body *body)
{
	long bytes = bpf_get_stack(ctx, body->frames, max_kernel_frames * sizeof(__u64), 0);
	__u64 hash = 1;
	__u32 n;

	if (bytes <= 0)
		return OUTCOME_KERNEL_FAILED;
	n = (__u32)bytes / sizeof(__u64);
	for (__u32 i = 0; i < max_kernel_frames; i++) {
		if (i >= n)
			break;
		hash = hash_step(hash, body->frames[i & (FRAMES_CAPACITY - 1)]);
	}
	body->kernel_frames = n & (FRAMES_CAPACITY / 2 - 1);
	body->key.kernel_stack_id = hash;
	return n < max_kernel_frames ? OUTCOME_COMPLETE : OUTCOME_KERNEL_DEPTH;
}

/* Before Linux 5.15 the registers of a task in the kernel are out of reach: the kernel's walk. */
static __always_inline enum outcome collect_user_stack_by_helper(void *ctx, struct stack_body *body)
{
	__u32 at = body->kernel_frames & (FRAMES_CAPACITY / 2 - 1);
	__u64 *frames = &body->frames[at];
	long bytes = bpf_get_stack(ctx, frames, MAX_FP_FRAMES * sizeof(__u64), BPF_F_USER_STACK);
	__u64 hash = 1;
	__u32 n;

	if (bytes <= 0)
		return OUTCOME_USER_FAULT;
	n = (__u32)bytes / sizeof(__u64);
	for (int i = 0; i < MAX_FP_FRAMES; i++) {
		if (i >= n)
			break;
		hash = hash_step(hash, body->frames[(at + i) & (FRAMES_CAPACITY - 1)]);
	}
	body->user_frames = n & (FRAMES_CAPACITY / 2 - 1);
	body->key.user_stack_id = hash_step(hash, OUTCOME_USER_UNKNOWN);
	return OUTCOME_USER_UNKNOWN;
}

/* Of a key whose stack ids are known. */
static __always_inline void identify_waker(struct counts_key *key)
{
	__u64 hash = hash_step(1, (__u64)key->tgid << 32 | key->tid);

	hash = hash_step(hash_step(hash, key->process_state), key->kernel_stack_id);
	hash = hash_step(hash_step(hash, key->comm[0]), key->comm[1]);
	key->waker_id = hash_step(hash, key->user_stack_id);
}

/*
 * Puts true return addresses in the place of the uretprobes' trampoline, in the order of the
 * thread's list, where several entries may be for one place. Each round is one step along the
 * frames or along the list; how far it is, is in memory: see find_row.
 */
__noinline int restore_frames(__u32 state)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &state);
	__u64 trampoline = uretprobe_trampoline(current_task()), hash = 1, done = 0, *frame;
	struct stack_body *body;
	volatile __u32 *at;
	struct walk *walk;

	if (!cpu)
		return 0;
	body = &cpu->body;
	walk = &cpu->walk;
	at = &walk->at;
	*at = 0;
	for (int round = 0; round < MAX_FP_FRAMES + MOST_RESTORED; round++) {
		if (*at >= body->user_frames)
			break;
		frame = &body->frames[(body->kernel_frames + *at) & (FRAMES_CAPACITY - 1)];
		if (*frame == trampoline && walk->uretprobe_sp == done) {
			next_uretprobe(walk, next_of(walk->uretprobe));
			continue;
		}
		if (*frame == trampoline && walk->uretprobe) {
			*frame = true_address(walk->uretprobe);
			done = walk->uretprobe_sp;
		}
		hash = hash_step(hash, *frame);
		*at += 1;
	}
	walk->hash = hash;
	return 0;
}

_Static_assert((int)KIND_ON_CPU == (int)CPU_STATE_SAMPLER &&
		   (int)KIND_OFF_CPU == (int)CPU_STATE_SCHEDULER &&
		   (int)KIND_WAKER == (int)CPU_STATE_WAKER &&
		   (int)KIND_LATENCY == (int)CPU_STATE_LATENCY,
	       "a stack's kind is not the number of its space");

/* By frame pointers alone, for kernels without bpf_loop and for --unwind fp. */
static __always_inline enum outcome walk_by_frame_pointers(struct cpu_state *cpu)
{
	struct unwind_registers regs = cpu->walk.regs;
	struct stack_body *body = &cpu->body;
	__u32 at = body->kernel_frames;
	__u64 hash = hash_step(1, regs.ip);
	enum outcome outcome = cpu->walk.is_32_bit ? OUTCOME_USER_32_BIT : OUTCOME_USER_DEPTH;
	__u32 n = 1;

	body->frames[at & (FRAMES_CAPACITY - 1)] = regs.ip;
	for (int i = 1; i < MAX_FP_FRAMES && outcome == OUTCOME_USER_DEPTH; i++) {
		enum step step = step_by_frame_pointer(&regs, &cpu->walk);

		if (step != STEP_CALLER) {
			outcome = step == STEP_NO_ROW ? OUTCOME_USER_CHAIN : outcome_of(step);
			break;
		}
		body->frames[(at + i) & (FRAMES_CAPACITY - 1)] = regs.ip;
		hash = hash_step(hash, regs.ip);
		n++;
	}
	body->user_frames = n;
	cpu->walk.hash = hash;
	if (cpu->walk.uretprobe_sp != -1ULL)
		restore_frames(body->key.kind);
	return outcome;
}

/*
 * The process has no tables yet: its registers and the top of its stack go to user space, which
 * unwinds them when it knows the mappings. The stack's id is that of where it was seen.
 */
static __always_inline enum outcome dump_stack(struct cpu_state *cpu,
					       struct unwind_process *process)
{
	struct stack_body *body = &cpu->body;
	struct walk *walk = &cpu->walk;
	struct stack_dump *dump;
	__u64 page = walk->regs.sp & ~(STACK_DUMP_PAGE - 1ULL);
	int i;

	if (process && process->dumps >= STACK_DUMPS_PER_PROCESS)
		return OUTCOME_USER_NO_TABLE;
	dump = bpf_ringbuf_reserve(&dumps, sizeof(*dump), 0);
	if (!dump)
		return OUTCOME_USER_NO_TABLE;
	walk->hash =
	    hash_step(hash_step(hash_step(2, walk->regs.ip), walk->regs.sp), walk->regs.fp);
	body->key.user_stack_id = hash_step(walk->hash, OUTCOME_USER_DUMPED);
	if (body->key.kind == KIND_WAKER)
		identify_waker(&body->key);
	dump->key = body->key;
	dump->time_ns = bpf_ktime_get_ns();
	dump->regs = walk->regs;
	__builtin_memcpy(dump->leaf, walk->leaf, sizeof(dump->leaf));
	dump->outcome = body->outcome;
	dump->kernel_frames = body->kernel_frames;
	bpf_probe_read_kernel(dump->kernel, (body->kernel_frames & MAX_KERNEL_FRAMES) * 8,
			      body->frames);
	for (i = 0; i < STACK_DUMP_PAGES; i++) {
		if (bpf_probe_read_user(&dump->stack[i * STACK_DUMP_PAGE], STACK_DUMP_PAGE,
					(void *)(page + i * STACK_DUMP_PAGE)))
			break;
	}
	dump->pages = i;
	dump->is_return_address = walk->is_return_address;
	dump->is_32_bit = walk->is_32_bit;
	dump->initial_stack = initial_stack();
	dump->thread_pointer = 0;
	restore_return_addresses(dump, current_task(), page);
	/* The sooner user space looks, the fewer stacks have to be sent. */
	bpf_ringbuf_submit(dump,
			   process && process->dumps ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
	if (process)
		__sync_fetch_and_add(&process->dumps, 1);
	return OUTCOME_USER_DUMPED;
}

/* Forgets mappings that are not those of the program that the current task executes. */
static __always_inline void disown_others_mappings(struct unwind_process *process,
						   struct task_struct *task)
{
	__u64 start = READ(task, group_leader, start_boottime);
	__u32 execs = READ(task, self_exec_id);

	if (process->owner == start && process->execs == execs)
		return;
	if (process->owner) {
		process->mappings = 0;
		barrier();
		process->dumps = 0;
		process->since_ns = bpf_ktime_get_ns();
	}
	process->execs = execs;
	process->owner = start;
}

static __always_inline enum outcome walk_by_tables(struct task_struct *task, struct cpu_state *cpu,
						   const struct unwind_registers *regs)
{
	__u32 tgid = cpu->body.key.tgid;
	struct unwind_process *process = bpf_map_lookup_elem(&unwind_processes, &tgid);
	struct walk_context context = {.cpu = cpu};
	struct walk *walk = &cpu->walk;
	struct unwind_run *header = NULL;
	__u32 index;
	__u32 is_return_address = walk->is_return_address;

	if (process)
		disown_others_mappings(process, task);
	if (process && process->mappings) {
		walk->process = *process;
		index = walk->process.first_mapping - 1;
		header = bpf_map_lookup_elem(&unwind_mappings, &index);
	}
	/* Not known yet, or an entry that has outlived its mappings. */
	if (!header || header->number != walk->process.run)
		return dump_stack(cpu, process);
	begin_walk(walk);
	begin_interpreters(walk, header);
	bpf_loop(FRAMES_CAPACITY - 1 - cpu->body.kernel_frames, walk_frame, &context, 0);
	/* A library that has just been loaded, most likely; or one that is large. */
	if (walk->outcome == OUTCOME_USER_NO_MAPPING || walk->outcome == OUTCOME_USER_NO_TABLE) {
		walk->regs = *regs;
		walk->is_return_address = is_return_address;
		if (dump_stack(cpu, process) == OUTCOME_USER_DUMPED)
			return OUTCOME_USER_DUMPED;
	}
	return walk->outcome;
}

/* Walks from the registers in `cpu->walk`. */
static __always_inline enum outcome walk_user_stack(struct task_struct *task, struct cpu_state *cpu,
						    bool by_tables)
{
	struct stack_body *body = &cpu->body;
	struct unwind_registers regs;
	enum outcome outcome;

	/* A worker of io_uring has an address space, but was never in user mode. */
	if (!cpu->walk.regs.ip)
		return OUTCOME_COMPLETE;
	cpu->walk.window_start = 0;
	begin_uretprobes(&cpu->walk, task);
	regs = cpu->walk.regs;
	if (by_tables)
		outcome = walk_by_tables(task, cpu, &regs);
	else
		outcome = walk_by_frame_pointers(cpu);
	/* Exec has dropped the old program's memory and not set the new one's registers. */
	if (outcome == OUTCOME_USER_FAULT && BPF_CORE_READ_BITFIELD_PROBED(task, in_execve)) {
		body->user_frames = 0;
		return OUTCOME_COMPLETE;
	}
	body->key.user_stack_id = hash_step(cpu->walk.hash, outcome);
	return outcome;
}

/* Of a task that is in the kernel. */
static __always_inline enum outcome collect_saved_user_stack(void *ctx, struct task_struct *task,
							     struct cpu_state *cpu, bool by_tables)
{
	struct pt_regs *saved;

	if (kernel_walks_user || !HAS_HELPER(task_pt_regs))
		return collect_user_stack_by_helper(ctx, &cpu->body);
	saved = (struct pt_regs *)bpf_task_pt_regs(task);
	saved_user_registers(saved, &cpu->walk.regs);
	cpu->walk.is_32_bit = saved_32_bit(saved);
	cpu->walk.is_return_address = 0;
	if (by_tables) {
		saved_leaf(saved, cpu->walk.leaf);
		/* A function may end there, as a signal's trampoline does. */
		cpu->walk.is_return_address = in_system_call(saved);
	}
	return walk_user_stack(task, cpu, by_tables);
}

static __always_inline enum outcome collect_user_stack(struct perf_event_context *ctx,
						       struct task_struct *task,
						       struct cpu_state *cpu, bool by_tables)
{
	if (!in_user_mode(ctx) || kernel_walks_user || !HAS_HELPER(task_pt_regs))
		return collect_saved_user_stack(ctx, task, cpu, by_tables);
	interrupted_registers(ctx, &cpu->walk.regs);
	cpu->walk.is_32_bit = interrupted_32_bit(ctx);
	cpu->walk.is_return_address = 0;
	if (by_tables)
		interrupted_leaf(ctx, cpu->walk.leaf);
	return walk_user_stack(task, cpu, by_tables);
}

/* The frames are not sent to user space again while their key stays in the map. */
static __always_inline bool send_body(struct cpu_state *cpu, struct stack_body *body,
				      bool by_tables)
{
	__u32 n = body->kernel_frames + body->user_frames;
	__u64 size = __builtin_offsetof(struct stack_body, frames) +
		     (n & (FRAMES_CAPACITY - 1)) * sizeof(__u64);

	/* User space has more than the frames of this one. */
	if (body->outcome == OUTCOME_USER_DUMPED)
		return true;
	if (by_tables && body->user_frames && cpu->walk.interpreters)
		send_codes(body->key.kind);
	body->time_ns = bpf_ktime_get_ns();
	/* User space looks at the ring by the clock; waking it here would cost more. */
	if (!bpf_ringbuf_output(&bodies, body, size, BPF_RB_NO_WAKEUP))
		return true;
	cpu->bodies_delayed++;
	return false;
}

/* Counts the sample under its key; the first one of a key brings the frames along. */
static __always_inline enum outcome count(struct cpu_state *cpu, struct stack_body *body, __u64 ns,
					  bool by_tables)
{
	void *counts = bpf_map_lookup_elem(&current_counts, &zero);
	struct counts_value *value;
	long err;

	if (!counts)
		return OUTCOME_LOST_COUNTS_BUSY;
	value = bpf_map_lookup_elem(counts, &body->key);
	if (!value) {
		struct counts_value first = {
		    .samples = 1,
		    .time_ns = ns,
		};

		first.body_sent = send_body(cpu, body, by_tables);
		err = bpf_map_update_elem(counts, &body->key, &first, BPF_NOEXIST);
		if (!err)
			return body->outcome;
		/* Another CPU may have been first: only the idle task runs on several at once. */
		value = bpf_map_lookup_elem(counts, &body->key);
		if (!value)
			return err == -7 /* E2BIG */ ? OUTCOME_LOST_COUNTS_FULL
						     : OUTCOME_LOST_COUNTS_BUSY;
	}
	__sync_fetch_and_add(&value->samples, 1);
	__sync_fetch_and_add(&value->time_ns, ns);
	if (!value->body_sent)
		value->body_sent = send_body(cpu, body, by_tables);
	return body->outcome;
}

/* Wakers are known by their stacks alone. */
static __always_inline void keep_time(struct counts_key *key, __u64 now, __u32 cpu)
{
	bool is_kept = time_slot_ns && key->kind != KIND_WAKER;

	key->time_slot = is_kept ? now / time_slot_ns : 0;
	key->cpu = is_kept ? cpu : 0;
}

static __always_inline void begin_body(struct stack_body *body, struct task_struct *task,
				       enum kind kind)
{
	body->key.tgid = tgid_of(task);
	body->key.tid = tid_of(task);
	body->key.kind = kind;
	body->key.process_state = process_state(task);
	read_comm(task, body->key.comm);
	body->key.kernel_stack_id = 0;
	body->key.user_stack_id = 0;
	body->key.waker_id = 0;
	read_cgroups(task, &body->key.cgroups);
	keep_time(&body->key, time_slot_ns ? bpf_ktime_get_ns() : 0,
		  time_slot_ns ? bpf_get_smp_processor_id() : 0);
	body->kernel_frames = 0;
	body->user_frames = 0;
}

/* Whether there is a user stack that is recorded. Of processes outside of our PID namespace nothing
 * is known that it could be named by. */
static __always_inline bool has_user_stack(struct task_struct *task, struct stack_body *body)
{
	return user_stacks && !(READ(task, flags) & (PF_KTHREAD | PF_IDLE)) && READ(task, mm) &&
	       body->key.tgid != OUTSIDE_ID;
}

static __always_inline enum outcome sample(struct perf_event_context *ctx, struct cpu_state *cpu,
					   bool by_tables)
{
	struct task_struct *task = current_task();
	struct stack_body *body = &cpu->body;
	enum outcome outcome = OUTCOME_COMPLETE, user = OUTCOME_COMPLETE;
	__u64 period = period_ns;

	if (!period)
		LOAD(period, ctx->sample_period);
	if (!(__u32)bpf_get_current_pid_tgid() && !include_idle)
		return OUTCOME_IDLE;
	if (!wanted(task))
		return OUTCOME_FILTERED;

	begin_body(body, task, KIND_ON_CPU);
	if (kernel_stacks && !in_user_mode(ctx))
		outcome = collect_kernel_stack(ctx, body);
	/* An exiting process has given its memory back, and with it its user stack. */
	if (has_user_stack(task, body)) {
		body->outcome = outcome; /* goes with the stack, if that is sent whole */
		user = collect_user_stack(ctx, task, cpu, by_tables);
		if (outcome == OUTCOME_COMPLETE || user == OUTCOME_USER_DUMPED)
			outcome = user;
	}
	body->outcome = outcome;
	return count(cpu, body, period, by_tables);
}

static __always_inline int run(struct perf_event_context *ctx, bool by_tables)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &zero);
	__u64 outcome;

	if (!cpu)
		return 0; /* cannot be: a per-CPU array of one entry has entry 0 */
	outcome = sample(ctx, cpu, by_tables);
	barrier_var(outcome); /* so that what is checked is what is used */
	if (outcome < OUTCOME_MAX)
		cpu->outcomes[outcome]++;
	return 0;
}

/*
 * The programs of the scheduler's hooks, and others, are in files of their own, but in this object:
 * they share the walk, whose functions are static so that the verifier follows them into their
 * callers, the maps and the knobs. As objects of their own they would each bring a copy, to be kept
 * equal by hand.
 */
#include "off_cpu.bpf.c"
#include "wakers.bpf.c"
#include "cgroups.bpf.c"
#include "events.bpf.c"
#include "counters.bpf.c"
#include "latency.bpf.c"

SEC("perf_event")
int on_cpu(struct perf_event_context *ctx)
{
	return run(ctx, false);
}

/* A program of its own, for kernels before 5.17 refuse to load one that mentions bpf_loop. */
SEC("perf_event")
int on_cpu_by_tables(struct perf_event_context *ctx)
{
	return run(ctx, true);
}

/* A child belongs to the recording before it runs its first instruction. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(follow_child, struct task_struct *parent, struct task_struct *child)
{
	__u64 start = child->start_boottime;
	struct cpu_state *cpu;
	__u32 tgid;

	if (child->tgid == parent->tgid || !is_target(parent))
		return 0;
	tgid = tgid_of(child);
	if (bpf_map_update_elem(&targets, &tgid, &start, BPF_ANY)) {
		cpu = bpf_map_lookup_elem(&cpu_states, &zero);
		if (cpu)
			__sync_fetch_and_add(&cpu->follow_failed, 1);
	}
	return 0;
}

/*
 * The leader is freed last. Not at exit: a process still takes time while it exits. The id may have
 * a new owner by now, whose entries stay. (One that comes between the look and the deletion would
 * lose them: nanoseconds, and its id would have to be given away right then.)
 */
SEC("tp_btf/sched_process_free")
int BPF_PROG(forget_process, struct task_struct *task)
{
	__u64 start = task->start_boottime;
	struct unwind_process *process;
	__u32 tgid = tgid_of(task);
	__u64 *owner;

	if (task->pid != task->tgid)
		return 0;
	owner = bpf_map_lookup_elem(&targets, &tgid);
	if (owner && (!*owner || *owner == start))
		bpf_map_delete_elem(&targets, &tgid);
	process = bpf_map_lookup_elem(&unwind_processes, &tgid);
	if (process && (!process->owner || process->owner == start))
		bpf_map_delete_elem(&unwind_processes, &tgid);
	return 0;
}

/* A forked process has its parent's mappings, and so its tables, until it executes. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(inherit_tables, struct task_struct *parent, struct task_struct *child)
{
	struct unwind_process inherited = {}, *known;
	__u32 parent_tgid, tgid;

	if (child->tgid == parent->tgid)
		return 0;
	parent_tgid = tgid_of(parent);
	tgid = tgid_of(child);
	known = bpf_map_lookup_elem(&unwind_processes, &parent_tgid);
	if (known) {
		disown_others_mappings(known, parent);
		inherited = *known;
	}
	inherited.dumps = 0;
	inherited.execs = child->self_exec_id;
	inherited.owner = child->start_boottime;
	inherited.since_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&unwind_processes, &tgid, &inherited, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(forget_tables, struct task_struct *task)
{
	/* Until user space has seen the new program, its stacks are sent whole. */
	struct unwind_process none = {
	    .execs = task->self_exec_id,
	    .owner = task->group_leader->start_boottime,
	    .since_ns = bpf_ktime_get_ns(),
	};
	__u32 tgid = tgid_of(task);

	bpf_map_update_elem(&unwind_processes, &tgid, &none, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
