# SPDX-License-Identifier: Apache-2.0
"""Sections that their tables alone do not tell; each module has the section's name."""
