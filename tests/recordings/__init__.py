# SPDX-License-Identifier: Apache-2.0
"""Recordings of any length, made from real ones, and what SQL says of their events."""
