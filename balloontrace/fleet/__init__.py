# SPDX-License-Identifier: Apache-2.0
"""Many recordings: each becomes a few rows of one dataset, which tells of the guests together."""
