/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* Numbers of system calls, for build.rs, which makes the program's table of their names of it. */
#include <asm/unistd.h>
