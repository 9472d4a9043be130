# SPDX-License-Identifier: Apache-2.0
"""Reproducible guests: images built from Debian packages, booted in QEMU, run by scenarios."""
