/* Declared with the rest in uapi/linux/ptrace.h. */
