# SPDX-License-Identifier: Apache-2.0
"""One file for each question put to a trace, and nothing else: they are discovered."""
