# SPDX-License-Identifier: Apache-2.0
"""The course of a recording: its data, and four ways to draw them."""
