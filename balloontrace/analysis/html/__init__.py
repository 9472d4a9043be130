# SPDX-License-Identifier: Apache-2.0
"""Results as one page that works offline."""
