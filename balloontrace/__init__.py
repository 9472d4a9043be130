# SPDX-License-Identifier: Apache-2.0
"""balloontrace: an eBPF tracing toolkit for the memory balloon of real Linux guests."""

__version__ = "0.1.0"
