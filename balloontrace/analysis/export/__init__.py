# SPDX-License-Identifier: Apache-2.0
"""Recordings for other tools. Unlike renderers, exports see the Trace: they carry every event."""
