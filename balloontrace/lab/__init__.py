"""Reproducible guests: images built from Debian packages, booted in QEMU, run by scenarios."""
