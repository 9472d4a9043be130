# SPDX-License-Identifier: Apache-2.0
"""Benchmarks, run by make; each prints the figures the docs state."""
