# SPDX-License-Identifier: Apache-2.0
"""How a balloon driver gives memory back when its guest needs some: told from what the driver has.

Versions are never asked: distributions backport, and the shrinker's symbols alone prove nothing,
for stock drivers have them for free page hinting.
"""

from __future__ import annotations

from collections.abc import Collection

OOM_NOTIFIER = "virtio_balloon_oom_notify"
SHRINKER = "virtio_balloon_shrinker_scan"

NOT_OFFERED = "the device does not offer the feature"
"""How recordings up to balloontrace 0.1 say that a seam was not attached, for its feature was not
negotiated when they began."""

NOT_NEGOTIATED = {
    "reporting": "the host does not offer it (QEMU: free-page-reporting=on), or does not offer "
    "page_poison to a kernel that clears freed memory (init_on_free)",
    "free_page_hint": "the host does not offer it (QEMU: free-page-hint=on)",
    "deflate_on_oom": "the host does not offer it (QEMU: deflate-on-oom=on)",
}
"""Features that a host can offer for the guest's sake -> why they are not negotiated. The kernel
itself refuses reporting since commit fb69c2c896fc "virtio-balloon: Disable free page reporting if
page poison reporting is not enabled" (in v5.8)."""

DESCRIPTIONS = {
    "shrinker": "any reclaim may deflate the balloon (shrinker)",
    "oom-notifier": "deflates before the OOM killer chooses a victim (oom-notifier)",
    "none": "only the host moves the balloon (none)",
}
"""The behaviours, for people."""


def promised(features: Collection[str], symbols: Collection[str]) -> tuple[str, str]:
    """The behaviour that negotiated features and the driver's functions promise, and what shows it.

    A driver that has no OOM notifier but a shrinker is that of 4.19 to 5.6 (Linux commits
    71994620bb25 and da10329cb057). Returns a key of DESCRIPTIONS and a reason.
    """
    if "deflate_on_oom" in features:
        if OOM_NOTIFIER in symbols:
            return "oom-notifier", "deflate_on_oom negotiated, the driver has an OOM notifier"
        if SHRINKER in symbols:
            return "shrinker", "deflate_on_oom negotiated, a shrinker and no OOM notifier"
    return "none", "nothing gives pages back but the host"
