// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * What the recorded threads used in the recording, by the sums that the kernel keeps in each of
 * them. They are read three times in a thread's life at most: when the recording begins, when it
 * ends, and when the thread is freed. So they cost a thread nothing while it runs; perf's own
 * counters of a task cost each of its switches most of a microsecond.
 *
 * A thread's sums are final when it is freed, a grace period after its end, and not at its exit:
 * a short process takes half of its time to exit.
 */
const volatile __u32 command = 0; /* process of whose first exec the recording begins for it */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by user space */
	__type(key, __u32); /* the kernel's own id: a thread that is freed has no other any more */
	__type(value, struct counted_thread);
} counted_threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

const struct counters *abi_counters __attribute__((unused));

static __always_inline bool is_counted(struct task_struct *task)
{
	return (filter == FILTER_NONE || is_target(task)) && (!cgroup_id || in_cgroup(task));
}

static __always_inline void read_sums(struct task_struct *task, struct counted_thread *thread)
{
	thread->start = task->start_boottime;
	thread->run_ns = task->se.sum_exec_runtime;
	thread->switches = task->nvcsw + task->nivcsw;
	thread->migrations = task->se.nr_migrations;
	thread->faults = task->min_flt + task->maj_flt;
	thread->major_faults = task->maj_flt;
}

/* Adds what a thread has used since its sums were those of `before`. */
static __always_inline void add_since(struct counters *all, struct counted_thread *before,
				      struct task_struct *task)
{
	__sync_fetch_and_add(&all->run_ns, task->se.sum_exec_runtime - before->run_ns);
	__sync_fetch_and_add(&all->switches, task->nvcsw + task->nivcsw - before->switches);
	__sync_fetch_and_add(&all->migrations, task->se.nr_migrations - before->migrations);
	__sync_fetch_and_add(&all->faults, task->min_flt + task->maj_flt - before->faults);
	__sync_fetch_and_add(&all->major_faults, task->maj_flt - before->major_faults);
}

/* The recording begins: what threads have used so far is not its. */
SEC("iter/task")
int begin_counters(struct bpf_iter__task *ctx)
{
	struct counters *all = bpf_map_lookup_elem(&counters, &zero);
	struct task_struct *task = ctx->task;
	struct counted_thread thread = {};
	__u32 id;

	if (!task || !all || !task->pid || !is_counted(task))
		return 0;
	id = task->pid;
	read_sums(task, &thread);
	if (bpf_map_update_elem(&counted_threads, &id, &thread, BPF_NOEXIST))
		__sync_fetch_and_add(&all->threads_lost, 1);
	return 0;
}

/* The command itself begins with its program, as it does for perf. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(begin_command, struct task_struct *task)
{
	struct counters *all = bpf_map_lookup_elem(&counters, &zero);
	struct counted_thread thread = {};
	__u32 id = task->pid;

	if (!all || all->command_began || tgid_of(task) != command)
		return 0;
	all->command_began = 1;
	read_sums(task, &thread);
	bpf_map_update_elem(&counted_threads, &id, &thread, BPF_ANY);
	return 0;
}

/* A thread ends. Whether it is recorded is known now, and what it used when it is freed. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(thread_ends, struct task_struct *task)
{
	struct counters *all = bpf_map_lookup_elem(&counters, &zero);
	struct counted_thread *known, thread = {};
	__u32 id = task->pid;

	if (!all || all->ended || !is_counted(task))
		return 0;
	known = bpf_map_lookup_elem(&counted_threads, &id);
	if (known && known->start == task->start_boottime) {
		known->ends = 1;
	} else {
		thread.start = task->start_boottime;
		thread.ends = 1;
		if (bpf_map_update_elem(&counted_threads, &id, &thread, BPF_ANY)) {
			__sync_fetch_and_add(&all->threads_lost, 1);
			return 0;
		}
	}
	__sync_fetch_and_add(&all->ending, 1);
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(thread_freed, struct task_struct *task)
{
	struct counters *all = bpf_map_lookup_elem(&counters, &zero);
	struct counted_thread *thread;
	__u32 id = task->pid;

	thread = bpf_map_lookup_elem(&counted_threads, &id);
	if (!all || !thread || thread->start != task->start_boottime)
		return 0;
	if (!thread->told) {
		add_since(all, thread, task);
		if (thread->ends)
			__sync_fetch_and_add(&all->ending, -1);
	}
	bpf_map_delete_elem(&counted_threads, &id);
	return 0;
}

/* The recording ends for all threads that there are, also those whose parents have not waited. */
SEC("iter/task")
int end_counters(struct bpf_iter__task *ctx)
{
	struct counters *all = bpf_map_lookup_elem(&counters, &zero);
	struct counted_thread *known, none = {};
	struct task_struct *task = ctx->task;
	__u32 id;

	if (!task || !all || !task->pid || !is_counted(task))
		return 0;
	all->ended = 1;
	id = task->pid;
	known = bpf_map_lookup_elem(&counted_threads, &id);
	if (known && known->start == task->start_boottime) {
		if (known->told)
			return 0;
		known->told = 1;
		if (known->ends)
			__sync_fetch_and_add(&all->ending, -1);
		add_since(all, known, task);
	} else {
		add_since(all, &none, task);
	}
	return 0;
}
