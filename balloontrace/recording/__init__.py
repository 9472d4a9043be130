# SPDX-License-Identifier: Apache-2.0
"""The .btrace file: an append-only sequence of framed, checksummed blocks (docs/format.md).

What the guest needs of it (`layout`, `writer`) is standard library only; `reader` is for analyses.
Nothing is imported here, that a recorder does not load the reader.
"""
