# SPDX-License-Identifier: Apache-2.0
"""The OOM notifier gives back 1 MiB, the size worker takes it again for the host's target."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import (
    Evidence,
    Finding,
    Results,
    in_how_many,
    needers,
    said_needers,
)
from balloontrace.thresholds import RETAKEN_PAGES, RETAKEN_SHARE


class OomPingPong(Finding):
    """What the guest gets back in an OOM is taken again at once."""

    id = "oom-ping-pong"
    severity = "high"
    title = "OOM ping-pong: inflation takes again what the guest got back to survive"
    remedy = (
        "Lower the target in the host to the balloon's size as soon as that falls below it, and do "
        "not send the old target again (QEMU: query-balloon, then balloon with what it says; "
        "libvirt: virsh setmem). deflate-on-oom is the guest's last resort, 1 MiB at a time "
        "(virtio_balloon_oom_notify), and does not change the target; let the host's policy leave "
        "MemAvailable a reserve, read from the balloon's statistics (QEMU: guest-stats)."
    )
    needs = ("causes", "oom.notifier_calls", "episodes")

    def check(self, results: Results) -> Evidence | None:
        """Look at each bout of the notifier; the evidence is the worst one's."""
        hit = [
            bout
            for bout in results["oom"].tables["bouts"]
            if (bout["retaken_pages"] or 0) >= RETAKEN_PAGES
            and bout["retaken_pages"] >= RETAKEN_SHARE * bout["pages"]
        ]
        if not hit:
            return None
        worst = max(hit, key=lambda bout: int(bout["retaken_pages"]))
        keys = ("start_s", "end_s", "calls", "retaken_pages", "notices", "targets")
        # What was taken again had been given back, even if the notifier's return was missed.
        pages = max(worst["pages"], worst["retaken_pages"])
        numbers = {
            "bouts": len(hit),
            "of_bouts": len(results["oom"].tables["bouts"]),
            **{key: worst[key] for key in (*keys, "recorder_calls", "recorder_pages")},
            "pages": pages,
            "retaken_share": worst["retaken_pages"] / pages,
            "killed": results["oom"].scalars["killed"],
            "given_to": needers(results["causes"], "oom"),
        }
        return Evidence(
            numbers,
            _sentence(numbers),
            "high",
            "each page that was given back and taken again was seen, with no other target between",
        )


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    again, own = numbers["notices"], numbers["recorder_calls"]
    if again is None:
        why = "Whether the host sent its target again was not recorded."
    elif again > numbers["targets"]:
        why = (
            f"Meanwhile the host sent {again:,} configuration changes, of which "
            f"{numbers['targets']:,} changed the target."
        )
    else:
        why = "The inflation to the host's target was still under way."
    killed = {
        None: "whether anybody was killed was not recorded",
        0: "nobody was killed",
    }.get(numbers["killed"], f"OOM kills: {numbers['killed']}")
    return (
        f"{in_how_many(numbers['bouts'], numbers['of_bouts'], 'bouts')}"
        f"From {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s the OOM killer asked the "
        f"balloon {numbers['calls']:,} times and got {numbers['pages']:,} pages; the size worker "
        f"took at least {numbers['retaken_pages']:,} of them again "
        f"({numbers['retaken_share'] * 100:.0f} %) for a target that had not changed; {killed}. "
        f"{why} "
        f"Memory was needed by: {said_needers(numbers['given_to'])}"
        + (f"; the recorder's own {own:,} calls are not counted" if own else "")
        + "."
    )
