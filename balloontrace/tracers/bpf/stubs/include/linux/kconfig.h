/* SPDX-License-Identifier: Apache-2.0 */
/* BCC refuses to compile without this; whether it holds, the kernel says when a map is made. */
#define CONFIG_BPF_SYSCALL 1
