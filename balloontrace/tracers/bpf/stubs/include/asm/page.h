/* SPDX-License-Identifier: Apache-2.0 */
/* BCC sizes a ring buffer in these. The ring's size in bytes is what matters, and the kernel checks
 * it against its own page size. */
#define PAGE_SIZE 4096
