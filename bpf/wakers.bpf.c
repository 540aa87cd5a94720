// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Who ended a block: the stack of the thread that makes another one runnable, taken on the spot and
 * counted once like any other. The thread that is woken keeps its id, and with it counts its block.
 */
/* The kernel's entry for page faults, if it is known. */
const volatile __u64 page_fault_start = 0;
const volatile __u64 page_fault_end = 0;

static const __u32 waker = CPU_STATE_WAKER;

/*
 * Whether the CPU serves an interrupt; whoever it came upon has nothing to do with it. Interrupts
 * run on a stack of their own, and so do what they leave for later, but one that comes upon user
 * mode begins on the thread's: as a page fault does, which is the thread's own doing.
 */
static __always_inline bool in_interrupt(void *ctx, struct task_struct *task,
					 struct stack_body *body)
{
	__u64 stack = (__u64)task->stack;
	__u32 root;

	if ((__u64)ctx < stack || (__u64)ctx >= stack + THREAD_SIZE)
		return true;
	if (!page_fault_end || (task->flags & PF_KTHREAD) ||
	    in_system_call((struct pt_regs *)bpf_task_pt_regs(task)))
		return false;
	root = (body->kernel_frames - 1) & (FRAMES_CAPACITY / 2 - 1);
	return body->frames[root] < page_fault_start || body->frames[root] >= page_fault_end;
}

/* All interrupts are one. */
static __always_inline void name_interrupt(struct counts_key *key)
{
	key->tgid = key->tid = key->process_state = 0;
	key->comm[0] = key->comm[1] = 0;
	key->cgroups.v2 = key->cgroups.v1 = 0;
}

static __always_inline enum outcome count_waker(void *ctx, struct cpu_state *cpu)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct stack_body *body = &cpu->body;

	begin_body(body, task, KIND_WAKER);
	body->outcome = collect_kernel_stack(ctx, body);
	if (in_interrupt(ctx, task, body))
		name_interrupt(&body->key);
	else
		add_user_stack(ctx, task, cpu);
	identify_waker(&body->key);
	return count(cpu, body, 0, off_cpu_by_tables);
}

SEC("tp_btf/sched_waking")
int BPF_PROG(waking, struct task_struct *task)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &waker);
	struct thread_time *time = bpf_task_storage_get(&thread_times, task, NULL, 0);
	__u64 outcome;

	if (!cpu || !time || time->ended || time->state == THREAD_ON_CPU ||
	    !may_count(time, bpf_ktime_get_ns() - time->since_ns))
		return 0;
	outcome = count_waker(ctx, cpu);
	time->waker_id = cpu->body.key.waker_id;
	barrier_var(outcome);
	if (outcome < OUTCOME_MAX)
		cpu->outcomes[outcome]++;
	return 0;
}
