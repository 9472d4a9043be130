# SPDX-License-Identifier: Apache-2.0
"""What a recording is: events by kind, the balloon's size, and what is computed once of them."""
