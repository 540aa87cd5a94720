/* A function whose bytes can be found in the file: `turn` counts down and returns. */
__asm__(".text\n.globl turn\n.type turn, @function\nturn:\n.cfi_startproc\n"
	"mov $0x30d40, %ecx\n1: dec %ecx\njnz 1b\nret\n.cfi_endproc\n.size turn, . - turn\n");
