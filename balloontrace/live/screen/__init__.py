# SPDX-License-Identifier: Apache-2.0
"""The view of one guest on a terminal: lines of text (layout), and the program that shows them."""
