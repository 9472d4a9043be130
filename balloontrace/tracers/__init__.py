# SPDX-License-Identifier: Apache-2.0
"""Everything that runs inside the guest: standard library, BCC and pyroute2 only."""
