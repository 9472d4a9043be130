# SPDX-License-Identifier: Apache-2.0
"""Tests that take long, or more than `make test` needs: each has a make target of its own."""
