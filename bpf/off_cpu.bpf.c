// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Time off the CPU. `switched` runs at every context switch and only adds up: the time that the
 * leaving thread was on the CPU, and the time that the arriving one was off it. Its sums close by
 * construction, because each moment of a thread ends in exactly one of them. Where a switch was not
 * traced, as there are kernels that hide those of some processes, the scheduler's own sum of the
 * time on a CPU takes its place.
 *
 * A stack is taken only where the block was long enough, and not before it is over: in the thread
 * itself, on its way back, where its registers and its memory are at hand. That is `returned`, at a
 * hook that runs right after the switch on the same CPU; the two speak through `pending_ns`.
 *
 * How long a thread waited for a CPU, the scheduler knows (sched_info.run_delay). It is added
 * there when the thread arrives, so it is looked at when the thread returns or next leaves.
 */
const volatile __u64 min_block_ns = 1000000;
const volatile __u64 max_block_ns = ~0ULL;
const volatile __u32 block_states = ~0U; /* bits of TASK_* that count as blocked */
const volatile bool off_cpu_by_tables = false;

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread_time);
} thread_times SEC(".maps");

/* Threads that ended: struct thread_record. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* set by user space */
} ended_threads SEC(".maps");

/* Where the end of the recording writes a thread's last stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct thread_flush);
} flush_space SEC(".maps");

const struct thread_flush *abi_thread_flush __attribute__((unused));

static const __u32 scheduler = CPU_STATE_SCHEDULER;

/* What the scheduler has added to a thread's wait for a CPU since the last look. */
static __always_inline __u64 waited_since(struct thread_time *time, struct task_struct *task)
{
	__u64 delay = task->sched_info.run_delay;
	__u64 waited = delay - time->run_delay_ns;

	time->run_delay_ns = delay;
	time->runnable_ns += waited;
	return waited;
}

/* What the scheduler has added to a thread's time on a CPU since the last look. */
static __always_inline __u64 ran_since(struct thread_time *time, struct task_struct *task)
{
	__u64 sum = task->se.sum_exec_runtime;
	__u64 ran = sum - time->exec_ns;

	time->exec_ns = sum;
	return ran;
}

/* Before and after a switch changes a thread's times, for copy_times(). */
static __always_inline void change(struct thread_time *time)
{
	barrier();
	time->changes++;
	barrier();
}

/* A switch changes them for a few instructions, and cannot be interrupted meanwhile. */
#define MOST_TRIES 64

/* Times of one moment: the thread may switch on another CPU meanwhile. Stores are seen in their
 * order, as x86_64 has it. */
static __always_inline void copy_times(struct thread_time *copy, struct thread_time *time)
{
	__u32 changes, tries = 0;

	do {
		changes = *(volatile __u32 *)&time->changes;
		barrier();
		*copy = *time;
		barrier();
		changes = changes & 1 || changes != *(volatile __u32 *)&time->changes;
	} while (changes && ++tries < MOST_TRIES);
}

static __always_inline void fill_record(struct thread_record *record,
					const struct thread_time *time, struct task_struct *task,
					__u64 now)
{
	record->tgid = tgid_of(task);
	record->tid = time->tid;
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), task->comm);
	record->start_ns = time->start_ns;
	record->end_ns = now;
	record->on_cpu_ns = time->on_cpu_ns;
	record->off_cpu_ns = time->off_cpu_ns;
	record->runnable_ns = time->runnable_ns;
	record->stacked_ns = time->stacked_ns;
	record->blocks = time->blocks;
	record->preemptions = time->preemptions;
	record->stacked = time->stacked;
	read_cgroups(task, &record->cgroups);
	record->has_stack = 0;
}

/* The time of a thread that ends, or ends to have its id. */
static __always_inline void tell(struct cpu_state *cpu, struct thread_time *time,
				 struct task_struct *task, __u64 now)
{
	struct thread_record *record = bpf_ringbuf_reserve(&ended_threads, sizeof(*record), 0);

	if (!record) {
		cpu->threads_lost++;
		return;
	}
	fill_record(record, time, task, now);
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* As what a state counts: TASK_STATES, or NOLOAD alone. */
static __always_inline __u32 blocked_state(__u32 state)
{
	return state & TASK_NOLOAD ? TASK_NOLOAD : state & TASK_STATES;
}

static __always_inline void leave(struct cpu_state *cpu, struct thread_time *time,
				  struct task_struct *task, __u32 state, __u64 now)
{
	__u64 on = now - time->since_ns;
	__u64 ran = ran_since(time, task);

	change(time);
	/* Has it been seen to arrive? */
	if (time->state > THREAD_ON_CPU && ran < on) {
		time->off_cpu_ns += on - ran;
		if (time->state == THREAD_BLOCKED && on - ran >= min_block_ns)
			cpu->outcomes[OUTCOME_LOST_UNSEEN]++;
		on = ran;
	}
	time->on_cpu_ns += on;
	time->since_ns = now;
	time->task_state = blocked_state(state);
	time->state = time->task_state ? THREAD_BLOCKED : THREAD_RUNNABLE;
	time->waker_id = 0;
	waited_since(time, task);
	if (state & TASK_DEAD) {
		tell(cpu, time, task, now);
		time->ended = time->told = 1;
	} else if (time->task_state) {
		time->blocks++;
	} else {
		time->preemptions++;
	}
	change(time);
}

/* A block is only counted when it is over: before that it may be too short still. */
static __always_inline bool may_count(const struct thread_time *time, __u64 off)
{
	return off >= min_block_ns && (time->task_state & block_states);
}

static __always_inline void arrive(struct cpu_state *cpu, struct thread_time *time,
				   struct task_struct *task, __u64 now)
{
	__u64 off = now - time->since_ns;
	__u64 ran;

	change(time);
	/* Has it been seen to leave? */
	if (time->state == THREAD_ON_CPU) {
		ran = ran_since(time, task);
		ran = ran < off ? ran : off;
		time->on_cpu_ns += ran;
		off -= ran;
	}
	time->off_cpu_ns += off;
	time->since_ns = now;
	if (may_count(time, off))
		cpu->pending_ns = off;
	else
		cpu->outcomes[OUTCOME_FILTERED]++;
	time->state = THREAD_ON_CPU;
	change(time);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &scheduler);
	struct thread_time *time;
	__u64 now = 0;

	if (!cpu)
		return 0; /* cannot be: the array has this entry */
	cpu->pending_ns = 0;
	if (prev->pid) {
		time = bpf_task_storage_get(&thread_times, prev, NULL, 0);
		if (time && !time->ended) {
			now = bpf_ktime_get_ns();
			leave(cpu, time, prev, preempt ? 0 : prev_state, now);
		}
	}
	if (next->pid) {
		time = bpf_task_storage_get(&thread_times, next, NULL, 0);
		if (time && !time->ended)
			arrive(cpu, time, next, now ? now : bpf_ktime_get_ns());
	}
	return 0;
}

/* Of the current thread, which is in the kernel; to go with the kernel's stack. */
static __always_inline void add_user_stack(void *ctx, struct task_struct *task,
					   struct cpu_state *cpu)
{
	struct stack_body *body = &cpu->body;
	enum outcome user;

	if (!has_user_stack(task, body))
		return;
	user = collect_saved_user_stack(ctx, task, cpu, off_cpu_by_tables);
	if (body->outcome == OUTCOME_COMPLETE || user == OUTCOME_USER_DUMPED)
		body->outcome = user;
}

/* Takes a block of `ns` into the thread's time under a stack, less the wait for a CPU, if it shall
 * have one. Not if its record is written: there the block is among those without. The locked
 * additions, here and in end_thread(), have one of the two see the other. */
static __always_inline bool reserve_stack(struct thread_time *time, struct task_struct *task,
					  __u64 *ns)
{
	__u64 waited;
	bool reserved = false;

	__sync_fetch_and_add(&time->changes, 1);
	if (!time->ended) {
		waited = waited_since(time, task);
		*ns = *ns > waited ? *ns - waited : 0;
		reserved = *ns && *ns >= min_block_ns && *ns <= max_block_ns && wanted(task);
	}
	if (reserved) {
		time->stacked_ns += *ns;
		time->stacked++;
	}
	change(time);
	return reserved;
}

/* Counts a block of `ns` that has ended, with the stacks of the current thread. */
static __always_inline enum outcome count_block(void *ctx, struct cpu_state *cpu, __u64 ns)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread_time *time = bpf_task_storage_get(&thread_times, task, NULL, 0);
	enum outcome outcome;

	if (!time || !reserve_stack(time, task, &ns))
		return OUTCOME_FILTERED;
	begin_body(&cpu->body, task, KIND_OFF_CPU);
	cpu->body.key.waker_id = time->waker_id;
	cpu->body.outcome = OUTCOME_COMPLETE;
	if (kernel_stacks)
		cpu->body.outcome = collect_kernel_stack(ctx, &cpu->body);
	add_user_stack(ctx, task, cpu);
	outcome = count(cpu, &cpu->body, ns, off_cpu_by_tables);
	if (outcome >= OUTCOME_LOST_COUNTS_FULL) {
		change(time);
		time->stacked_ns -= ns;
		time->stacked--;
		change(time);
	}
	return outcome;
}

static __always_inline int return_from_block(void *ctx)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &scheduler);
	__u64 ns, outcome;

	if (!cpu || !cpu->pending_ns)
		return 0;
	ns = cpu->pending_ns;
	cpu->pending_ns = 0;
	outcome = count_block(ctx, cpu, ns);
	barrier_var(outcome);
	if (outcome < OUTCOME_MAX)
		cpu->outcomes[outcome]++;
	return 0;
}

/* Linux 6.18 on. */
SEC("tp_btf/sched_exit_tp")
int BPF_PROG(returned, bool is_switch)
{
	return return_from_block(ctx);
}

/* Before that: at finish_task_switch(), whose name user space finds. */
SEC("kprobe")
int returned_by_kprobe(struct pt_regs *ctx)
{
	return return_from_block(ctx);
}

static __always_inline void follow_thread(struct task_struct *task, __u32 state)
{
	__u64 now = bpf_ktime_get_ns();
	struct thread_time *time;
	struct cpu_state *cpu;

	if (cgroup_id && !in_cgroup(task))
		return;
	time = bpf_task_storage_get(&thread_times, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!time) {
		cpu = bpf_map_lookup_elem(&cpu_states, &scheduler);
		if (cpu)
			__sync_fetch_and_add(&cpu->threads_lost, 1);
		return;
	}
	if (time->start_ns)
		return;
	time->tid = tid_of(task);
	time->run_delay_ns = task->sched_info.run_delay;
	time->exec_ns = task->se.sum_exec_runtime;
	time->state = state;
	time->task_state = state ? 0 : blocked_state(task->__state);
	time->start_ns = now;
	time->since_ns = now;
}

/* A newborn waits for a CPU. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(follow_newborn, struct task_struct *parent, struct task_struct *child)
{
	if (filter == FILTER_NONE || (filter == FILTER_TGID && is_target(child)))
		follow_thread(child, THREAD_RUNNABLE);
	return 0;
}

/* A thread other than its process's first that executes a program takes over the first one's id.
 * Its time so far is told under the one that it had. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(change_id, struct task_struct *task)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &scheduler);
	struct thread_time *time = bpf_task_storage_get(&thread_times, task, NULL, 0);
	__u64 now = bpf_ktime_get_ns();

	if (!cpu || !time || time->ended || time->tid == tid_of(task))
		return 0;
	change(time);
	time->on_cpu_ns += now - time->since_ns;
	waited_since(time, task);
	tell(cpu, time, task, now);
	time->tid = tid_of(task);
	time->start_ns = time->since_ns = now;
	time->on_cpu_ns = time->off_cpu_ns = time->runnable_ns = time->stacked_ns = 0;
	time->blocks = time->preemptions = time->stacked = 0;
	change(time);
	return 0;
}

/* Every thread that there is. What it does now its first switch will tell: one that leaves a CPU
 * was on it, one that arrives was not. */
SEC("iter/task")
int follow_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task || !task->pid || task->exit_state)
		return 0;
	if (filter != FILTER_NONE && !is_target(task))
		return 0;
	follow_thread(task, THREAD_UNKNOWN);
	return 0;
}

/* The stack of a thread that is blocked still, to be walked in user space. */
static __always_inline void dump_blocked(struct stack_dump *dump, struct task_struct *task,
					 __u64 now)
{
	struct pt_regs *saved = (struct pt_regs *)bpf_task_pt_regs(task);
	long bytes;
	__u64 page;
	int i;

	dump->key.tgid = tgid_of(task);
	dump->key.tid = tid_of(task);
	dump->key.kind = KIND_OFF_CPU;
	dump->key.process_state = 0;
	read_comm(task, dump->key.comm);
	dump->key.kernel_stack_id = 0;
	dump->key.user_stack_id = now; /* like no other */
	dump->key.waker_id = 0;
	read_cgroups(task, &dump->key.cgroups);
	keep_time(&dump->key, now, NO_CPU);
	dump->time_ns = now;
	dump->outcome = OUTCOME_COMPLETE;
	dump->kernel_frames = 0;
	dump->pages = 0;
	dump->regs.ip = 0;
	if (kernel_stacks) {
		bytes = bpf_get_task_stack(task, dump->kernel, sizeof(dump->kernel), 0);
		if (bytes > 0)
			dump->kernel_frames = (__u32)bytes / sizeof(__u64);
		else
			dump->outcome = OUTCOME_KERNEL_FAILED;
	}
	if (!user_stacks || (task->flags & PF_KTHREAD) || !task->mm || dump->key.tgid == OUTSIDE_ID)
		return;
	saved_user_registers(saved, &dump->regs);
	dump->is_32_bit = saved_32_bit(saved);
	saved_leaf(saved, dump->leaf);
	dump->is_return_address = in_system_call(saved);
	dump->initial_stack = task->mm->start_stack;
	dump->thread_pointer = thread_pointer_of(task);
	page = dump->regs.sp & ~(STACK_DUMP_PAGE - 1ULL);
	for (i = 0; i < STACK_DUMP_PAGES; i++) {
		if (bpf_copy_from_user_task(&dump->stack[i * STACK_DUMP_PAGE], STACK_DUMP_PAGE,
					    (void *)(page + i * STACK_DUMP_PAGE), task, 0))
			break;
	}
	dump->pages = i;
	restore_return_addresses(dump, task, page);
}

static __always_inline bool is_on_cpu(const struct thread_time *time, struct task_struct *task)
{
	return time->state == THREAD_ON_CPU || (time->state == THREAD_UNKNOWN && task->on_cpu);
}

/* Whether a block that has lasted for `since` gets a stack. */
static __always_inline bool is_long_block(const struct thread_time *time, struct task_struct *task,
					  __u64 since)
{
	return !is_on_cpu(time, task) && may_count(time, since) && since <= max_block_ns;
}

static __always_inline int end_thread(struct bpf_iter__task *ctx, bool is_last)
{
	struct task_struct *task = ctx->task;
	struct thread_flush *flush = bpf_map_lookup_elem(&flush_space, &zero);
	struct thread_time *kept, time;
	__u64 now, since, ran;

	if (!task || !flush)
		return 0;
	kept = bpf_task_storage_get(&thread_times, task, NULL, 0);
	/* Told once: where the reader's buffer ends, the kernel comes back to a thread. */
	if (!kept || kept->told)
		return 0;
	now = bpf_ktime_get_ns();
	if (!is_last && is_long_block(kept, task, now - kept->since_ns))
		return 0;
	__sync_fetch_and_add(&kept->ended, 1);
	copy_times(&time, kept);
	/* It ended itself meanwhile. */
	if (time.told)
		return 0;
	now = bpf_ktime_get_ns();
	fill_record(&flush->record, &time, task, now);
	since = now - time.since_ns;
	if (time.state == THREAD_ON_CPU && !task->on_cpu) {
		/* No switch told that it left. The scheduler knows how long it ran. */
		ran = task->se.sum_exec_runtime - time.exec_ns;
		ran = ran < since ? ran : since;
		flush->record.on_cpu_ns += ran;
		flush->record.off_cpu_ns += since - ran;
	} else if (is_on_cpu(&time, task)) {
		flush->record.on_cpu_ns += since;
	} else {
		flush->record.off_cpu_ns += since;
		if (!time.task_state) {
			flush->record.runnable_ns += since;
		} else if (is_last && is_long_block(&time, task, since)) {
			flush->record.has_stack = 1;
			flush->record.stacked_ns += since;
			flush->record.stacked++;
			flush->blocked.blocked_ns = since;
			dump_blocked(&flush->blocked.dump, task, now);
		}
	}
	if (flush->record.has_stack)
		kept->told = !bpf_seq_write(ctx->meta->seq, flush, sizeof(*flush));
	else
		kept->told = !bpf_seq_write(ctx->meta->seq, &flush->record, sizeof(flush->record));
	return 0;
}

/* The end of the recording, for every thread that lives. First those that are not blocked: to write
 * the stacks of the others may take a second, in which the sampler must not go on. */
SEC("iter/task")
int end_threads(struct bpf_iter__task *ctx)
{
	return end_thread(ctx, false);
}

SEC("iter.s/task")
int flush_threads(struct bpf_iter__task *ctx)
{
	return end_thread(ctx, true);
}
