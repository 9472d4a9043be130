/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <string.h>
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64; /* as the kernel's size_t: helpers are given addresses */
