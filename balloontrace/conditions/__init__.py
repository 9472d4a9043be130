# SPDX-License-Identifier: Apache-2.0
"""Whether something goes wrong right now: what the watcher in the guest and the live view share."""
