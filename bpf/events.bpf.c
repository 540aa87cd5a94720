// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Samples of tracepoints. A program that is attached to one through perf runs at each hit of it, on
 * whatever CPU and whatever period the event has: so the period is counted here. perf events of all
 * other kinds run `on_cpu`.
 *
 * The kernel runs no program of a tracepoint, a kprobe or a perf event on a CPU where another one
 * runs. So this one has the sampler's space.
 */
const volatile __u64 hits_per_sample = 1;

static __always_inline enum outcome sample_hit(void *ctx, struct cpu_state *cpu, bool by_tables)
{
	struct task_struct *task = current_task();
	struct stack_body *body = &cpu->body;
	enum outcome user;

	if (!(__u32)bpf_get_current_pid_tgid() && !include_idle)
		return OUTCOME_IDLE;
	if (!wanted(task))
		return OUTCOME_FILTERED;
	if (++cpu->hits < hits_per_sample)
		return OUTCOME_FILTERED;
	cpu->hits = 0;
	begin_body(body, task, KIND_ON_CPU);
	body->outcome = kernel_stacks ? collect_kernel_stack(ctx, body) : OUTCOME_COMPLETE;
	/* The tracepoints of system calls have the user's registers, as of a task that is not in
	 * the kernel yet (Linux 6.1), and so no kernel stack. */
	if (body->outcome == OUTCOME_KERNEL_FAILED)
		body->outcome = OUTCOME_COMPLETE;
	if (has_user_stack(task, body)) {
		user = collect_saved_user_stack(ctx, task, cpu, by_tables);
		if (body->outcome == OUTCOME_COMPLETE || user == OUTCOME_USER_DUMPED)
			body->outcome = user;
	}
	return count(cpu, body, hits_per_sample, by_tables);
}

static __always_inline int hit(void *ctx, bool by_tables)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &zero);
	__u64 outcome;

	if (cpu) {
		outcome = sample_hit(ctx, cpu, by_tables);
		barrier_var(outcome);
		if (outcome < OUTCOME_MAX)
			cpu->outcomes[outcome]++;
	}
	return 1; /* at 0 the kernel would keep the hit from all others that trace it by perf */
}

SEC("tracepoint")
int at_tracepoint(void *ctx)
{
	return hit(ctx, false);
}

SEC("tracepoint")
int at_tracepoint_by_tables(void *ctx)
{
	return hit(ctx, true);
}
