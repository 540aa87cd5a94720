/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * The few kernel types the program reads, by name: CO-RE finds their offsets in the running
 * kernel's BTF. Only fields that are used are declared.
 */
#ifndef KERNEL_H
#define KERNEL_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Where the kernel keeps return addresses that it has replaced: see uretprobes.h. */
struct return_instance {
	unsigned long stack; /* address of the return address */
	unsigned long orig_ret_vaddr;
	struct return_instance *next;
};

struct uprobe_task {
	struct return_instance *return_instances;
};

struct xol_area {
	unsigned long vaddr; /* of the trampoline */
};

struct uprobes_state {
	struct xol_area *xol_area;
};

struct mm_struct {
	unsigned long exec_vm;	   /* executable pages */
	unsigned long start_stack; /* stack pointer of the first function */
	struct uprobes_state uprobes_state;
};

/* Changes of the address space are counted under one of these names, depending on the version. */
struct seqcount {
	unsigned int sequence;
};

struct mm_struct___seqcount { /* Linux 6.14 on */
	struct seqcount mm_lock_seq;
};

struct mm_struct___number { /* Linux 6.4 on */
	int mm_lock_seq;
};

struct mm_struct___vmacache { /* before Linux 6.1; mapping alone does not count */
	__u64 vmacache_seqnum;
};

struct sched_info {
	unsigned long long run_delay; /* nanoseconds runnable and not on a CPU */
};

struct sched_entity {
	__u64 sum_exec_runtime; /* nanoseconds on a CPU, as of the last switch or tick */
	__u64 nr_migrations;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup_root {
	int hierarchy_id; /* 0: v2 */
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
	int level;
	struct cgroup *ancestors[1]; /* itself the last; Linux 6.1 on */
};

struct cgroup___ids { /* before Linux 6.1 */
	__u64 ancestor_ids[1];
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1]; /* by controller */
	struct cgroup *dfl_cgrp;
};

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1]; /* one for each namespace, the first before its children */
};

struct thread_info {
	unsigned int status;
};

#if defined(__TARGET_ARCH_x86)
struct thread_struct {
	unsigned long fsbase; /* the thread pointer */
};
#endif

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state; /* Linux 5.14 on */
	void *stack;
	unsigned int flags;
	unsigned int on_cpu; /* a byte on Linux 7.2: libbpf narrows unsigned loads alone */
	int exit_state;	     /* not 0: a zombie */
	int pid;
	int tgid;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	__u64 start_boottime;
	__u64 self_exec_id; /* counts execs, inherited over fork */
	unsigned int in_execve : 1;
	struct uprobe_task *utask; /* kernels with CONFIG_UPROBES */
	struct css_set *cgroups;
	struct sched_info sched_info;
	struct sched_entity se;
	unsigned long nvcsw, nivcsw; /* switches: to wait, and to let others run */
	unsigned long min_flt, maj_flt;
	char comm[16];
#if defined(__TARGET_ARCH_x86)
	struct thread_struct thread;
#endif
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs;
	unsigned long sp;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
};
struct pt_regs {
	struct user_pt_regs user_regs;
	int syscallno;
};
#endif

/* The kernel's own list of helpers, of which those are named that not every kernel has. */
enum bpf_func_id___probe {
	BPF_FUNC_get_current_task_btf___probe = 158, /* Linux 5.11 */
	BPF_FUNC_task_pt_regs___probe = 175,	     /* Linux 5.15 */
};

#pragma clang attribute pop

/* States with which a thread leaves the CPU (include/linux/sched.h), of which the lowest are S and
 * D. Kernel threads without work are in D and NOLOAD: I. */
#define TASK_DEAD 0x80
#define TASK_STATES 0x1ff
#define TASK_NOLOAD 0x400

#define THREAD_SIZE 16384 /* of a kernel stack */

#define PF_IDLE 0x00000002
#define PF_KTHREAD 0x00200000

#define HAS_HELPER(name)                                                                           \
	bpf_core_enum_value_exists(enum bpf_func_id___probe, BPF_FUNC_##name##___probe)

/* Where the kernel knows the type of the current task, its fields are loaded as they are; before
 * Linux 5.11 through a helper. Loading the program leaves only one of the two in it. */
static __always_inline struct task_struct *current_task(void)
{
	if (HAS_HELPER(get_current_task_btf))
		return (struct task_struct *)bpf_get_current_task_btf();
	return (struct task_struct *)bpf_get_current_task();
}

#define LOAD_1(task, a) ((task)->a)
#define LOAD_2(task, a, b) ((task)->a->b)
#define LOAD_3(task, a, b, c) ((task)->a->b->c)
#define LOAD_4(task, a, b, c, d) ((task)->a->b->c->d)
#define LOAD_N(_1, _2, _3, _4, load, ...) load
#define READ(task, ...)                                                                            \
	(HAS_HELPER(get_current_task_btf)                                                          \
	     ? LOAD_N(__VA_ARGS__, LOAD_4, LOAD_3, LOAD_2, LOAD_1)(task, __VA_ARGS__)              \
	     : BPF_CORE_READ(task, __VA_ARGS__))

#endif
