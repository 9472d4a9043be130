# SPDX-License-Identifier: Apache-2.0
"""The host's view of a guest's balloon, recorded beside the guest's own (docs/host.md)."""
