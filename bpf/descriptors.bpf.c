// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Who holds BPF programs: all descriptors of programs, of links and of perf events on the machine.
 * The kernel walks its own tables of open files here, in place of a link of /proc that is read for
 * each of them: a machine may have millions, and a handful of those that are looked for.
 */
#include <linux/types.h>
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "kernel.h"

#define ANON_INODE_FS_MAGIC 0x09041934

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct super_block {
	unsigned long s_magic;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct qstr d_name;
	struct super_block *d_sb;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

struct descriptor {
	__u32 tgid;
	__u32 fd;
	char name[16]; /* of the kernel's kind of file: bpf-prog, bpf_link, [perf_event] */
};

/* The file systems of others may have files of any name; these lie in none. */
static __always_inline bool read_name(struct file *file, char *name, __u32 size)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);

	return BPF_CORE_READ(dentry, d_sb, s_magic) == ANON_INODE_FS_MAGIC &&
	       bpf_probe_read_kernel_str(name, size, BPF_CORE_READ(dentry, d_name.name)) > 0;
}

SEC("iter/task_file")
int list_descriptors(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct descriptor found = {};

	/* Threads share their process's descriptors. */
	if (!task || !file || task->pid != task->tgid)
		return 0;
	if (!read_name(file, found.name, sizeof(found.name)))
		return 0;
	/* User space compares the rest: there are few of these. */
	if ((found.name[0] != 'b' || found.name[1] != 'p') &&
	    (found.name[0] != '[' || found.name[1] != 'p'))
		return 0;
	found.tgid = task->tgid;
	found.fd = ctx->fd;
	/* If there was no room the kernel asks again for the same descriptor. */
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
