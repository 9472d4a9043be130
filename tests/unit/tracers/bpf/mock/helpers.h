/* SPDX-License-Identifier: Apache-2.0 */
/* Declared with the rest in uapi/linux/ptrace.h. */
