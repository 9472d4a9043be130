# SPDX-License-Identifier: Apache-2.0
"""The .btrace file: an append-only sequence of framed, checksummed blocks (docs/format.md).

Nothing is imported here, so that a recorder, which needs `layout` and `writer`, does not load the
reader.
"""
