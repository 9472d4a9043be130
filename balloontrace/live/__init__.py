# SPDX-License-Identifier: Apache-2.0
"""What one guest's balloon does right now: stream, sums of seconds, a snapshot, and its outputs."""
