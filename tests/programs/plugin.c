/* A plug-in for plugins.c and moved.c, whose busy function is WORK. It can be moved: it uses no data. */
__attribute__((noinline, aligned(4096))) void WORK(void)
{
	for (long i = 0; i < 3000000; i++)
		__asm__ volatile("");
}

void entry(void)
{
	WORK();
	__asm__ volatile("");
}
