# Directives that compilers seldom write and people do. No code is run.
	.text
	.type odd, @function
odd:
	.cfi_startproc
	nop
	.cfi_def_cfa r10, 0		# the CFA in a register
	nop
	.cfi_def_cfa rax, 524288
	nop
	.cfi_def_cfa rsp, 8
	.cfi_register rip, rcx		# the return address in one
	nop
	.cfi_restore rip
	.cfi_register rbp, r9
	nop
	.cfi_same_value rbp
	nop
	.cfi_remember_state
	.cfi_def_cfa_offset 16
	.cfi_offset rbp, -16
	nop
	.cfi_remember_state
	.cfi_adjust_cfa_offset 400000
	nop
	.cfi_restore_state
	nop
	.cfi_restore_state
	nop
	.cfi_val_offset rbp, -32	# has no rule: lost
	nop
	.cfi_restore rbp
	.cfi_escape 0x16, 6, 2, 0x76, 8	# DW_CFA_val_expression: rbp + 8. Lost
	nop
	.cfi_escape 0x10, 6, 2, 0x76, 0	# DW_CFA_expression: *(rbp)
	nop
	.cfi_escape 0x10, 6, 2, 0x77, 16	# *(rsp + 16)
	nop
	.cfi_escape 0x10, 6, 2, 0x76, 0
	nop
	.cfi_escape 0x2e, 16		# DW_CFA_GNU_args_size: of no concern
	nop
	.cfi_escape 0x0f, 3, 0x76, 0x78, 0x06			# *(rbp - 8)
	nop
	.cfi_escape 0x0f, 5, 0x77, 0x10, 0x06, 0x23, 0x08	# *(rsp + 16) + 8
	nop
	# *(rsp + 8 + 8 * r9) + 8
	.cfi_escape 0x0f, 10, 0x77, 8, 0x79, 0, 0x38, 0x1e, 0x22, 0x06, 0x23, 8
	nop
	.cfi_escape 0x0f, 3, 0x73, 0x00, 0x06			# *(rbx): no rule
	nop
	.cfi_def_cfa rsp, 8
	.cfi_val_offset rsp, 0		# what it is anyway
	nop
	.cfi_offset rsp, 48		# not where returns go
	nop
	.cfi_restore rsp
	.cfi_offset rip, 40
	nop
	.cfi_undefined rip		# the end
	nop
	.cfi_endproc
	.size odd, .-odd

	.type no_signal, @function
no_signal:
	.cfi_startproc
	.cfi_signal_frame
	nop
	.cfi_endproc
	.size no_signal, .-no_signal

	nop				# described by nobody
	.globl _start
	.type _start, @function
_start:
	.cfi_startproc
	.cfi_undefined rip
	hlt
	.cfi_endproc
	.size _start, .-_start
	.section .note.GNU-stack,"",@progbits
