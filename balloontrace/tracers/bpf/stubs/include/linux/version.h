/* SPDX-License-Identifier: Apache-2.0 */
/* No program of ours depends on the kernel's version; BCC's headers want one to compare with. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
