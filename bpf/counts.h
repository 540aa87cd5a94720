/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* What counts.bpf.c and src/recording/capture/bpf/counts.rs both know. */
#ifndef COUNTS_H
#define COUNTS_H

/* Indices of counts: numbers of system calls, then these. */
enum counts_limits {
	COUNTS_32_BIT = 1022, /* of programs in the machine's 32-bit mode: other numbers */
	COUNTS_UNKNOWN = 1023,
	COUNTS = 1024,
};

/* The kernel's functions for files. */
enum vfs {
	VFS_READ,
	VFS_WRITE,
	VFS_FSYNC,
	VFS_OPEN,
	VFS_CREATE,
	VFS_FUNCTIONS,
};

#endif
