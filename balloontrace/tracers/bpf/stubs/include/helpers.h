/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers of the kernel that older releases of BCC do not declare (include/uapi/linux/bpf.h). */
#ifndef BALLOONTRACE_HELPERS_H
#define BALLOONTRACE_HELPERS_H
#define bpf_get_ns_current_pid_tgid ((long (*)(u64, u64, void *, u32))120)
#define bpf_get_attach_cookie ((u64 (*)(void *))174)
#define bpf_get_func_arg ((long (*)(void *, u32, u64 *))183)
#define bpf_get_func_ret ((long (*)(void *, u64 *))184)
#endif
