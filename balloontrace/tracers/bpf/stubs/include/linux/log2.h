/* SPDX-License-Identifier: Apache-2.0 */
/* Asked for by BCC's own headers; nothing of it is needed. */
