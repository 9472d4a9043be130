# SPDX-License-Identifier: Apache-2.0
"""Always on, in the guest: metrics, the last minutes kept, triggers."""
