"""Benchmarks, run by make; each prints the figures the docs state."""
