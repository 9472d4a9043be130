# SPDX-License-Identifier: Apache-2.0
"""Renderers: text and JSON. They see results, never a trace."""
