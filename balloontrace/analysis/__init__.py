# SPDX-License-Identifier: Apache-2.0
"""The analysis side: turns a recording into results, and shows them. Needs pandas."""
