/*
 * For LD_PRELOAD: a kernel without loadable modules has no /proc/modules, and a profiler that cannot
 * open it drops every sample. Here it is there, and empty.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/types.h>

static const char *instead(const char *path)
{
	return strcmp(path, "/proc/modules") ? path : "/dev/null";
}

/* The mode is passed on only where there is one. */
#define MODE(flags, last)                                                                          \
	({                                                                                         \
		va_list rest;                                                                      \
		mode_t given = 0;                                                                  \
		va_start(rest, last);                                                              \
		if ((flags) & (O_CREAT | O_TMPFILE))                                               \
			given = va_arg(rest, mode_t);                                              \
		va_end(rest);                                                                      \
		given;                                                                             \
	})

int open64(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");

	return real(instead(path), flags, MODE(flags, flags));
}

int openat64(int dir, const char *path, int flags, ...)
{
	int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat64");

	return real(dir, instead(path), flags, MODE(flags, flags));
}
