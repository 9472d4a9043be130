# SPDX-License-Identifier: Apache-2.0
"""The balloon is short of its target, and the size worker does nothing about it: it rests, or the
guest fell asleep."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results, in_how_many


class WorkerAtRest(Finding):
    """Nobody works toward the target."""

    id = "worker-at-rest"
    severity = "medium"
    title = "The size worker rests, short of the target"
    remedy = (
        "Send the target again: it wakes the worker. Then find out what kept its work item from "
        "being run: a guest that its host did not run, a lost interrupt, or a workqueue that is "
        "stuck (dmesg: workqueue lockup; echo t > /proc/sysrq-trigger shows the workqueues). For a "
        "guest that was suspended on its way: a kernel with Linux commit b12fbc3f787e "
        '("virtio_balloon: stay awake while adjusting balloon") and wakeup enabled for the device, '
        "or no suspend before the target is reached."
    )
    needs = ("episodes",)

    REST_S = 10.0
    """The worker queues itself anew as long as it is short of the target, and sleeps for 0.2 s at
    most (update_balloon_size_func). So long, no busy machine keeps it waiting."""

    def check(self, results: Results) -> Evidence | None:
        """Look for the longest time without a call of the worker in each without progress."""
        episodes = results["episodes"].tables["episodes"]
        hit = [
            span
            for span in results["episodes"].intervals["no_progress"]
            if span["rest_s"] >= self.REST_S and not _done(episodes[span["episode"] - 1])
        ]
        asleep = _fell_asleep(results, self.REST_S)
        if not hit:
            return _asleep(asleep, results) if asleep else None
        worst = max(hit, key=lambda span: float(span["rest_s"]))
        episode = episodes[worst["episode"] - 1]
        numbers = {
            "times": len(hit),
            "suspended": len(asleep),
            "episodes": len({span["episode"] for span in hit}),
            "of_episodes": sum(row["direction"] is not None for row in episodes),
            **{key: worst[key] for key in ("episode", "rest_s", "start_s", "end_s")},
            **{key: episode[key] for key in ("direction", "outcome", "target_pages")},
            "gained_pages": episode["gained_pages"],
            "asked_pages": episode["asked_pages"],
        }
        return Evidence(numbers, _sentence(numbers), "medium", _CERTAIN)


_CERTAIN = "no call of the worker was seen; why it was not run is not in the recording"


def _fell_asleep(results: Results, least_s: float) -> list[int]:
    """Numbers of the episodes that ended short of their target as the guest was suspended; none if
    it was not for least_s or more in all, which no other time includes."""
    driver, episodes = results["driver"], results["episodes"].tables["episodes"]
    if (driver.scalars.get("suspended_s") or 0) < least_s:
        return []
    frozen_s = {row["start_s"] for row in driver.tables["calls"] if row["call"] == "freeze"}
    return [
        number
        for number, row in enumerate(episodes, start=1)
        if row["ended_by"] == "driver" and row["end_s"] in frozen_s and row["direction"]
    ]


def _asleep(numbers_of: list[int], results: Results) -> Evidence:
    """The evidence of the episode that was furthest from its target as the guest fell asleep."""
    episodes = results["episodes"].tables["episodes"]

    def short(number: int) -> int:
        row = episodes[number - 1]
        return abs(int(row["target_pages"]) - int(row["end_pages"]))

    worst = max(numbers_of, key=short)
    keys = ("direction", "outcome", "target_pages", "start_s", "end_s", "gained_pages",
            "asked_pages")  # fmt: skip
    numbers = {
        "times": 0,
        "suspended": len(numbers_of),
        "of_episodes": sum(row["direction"] is not None for row in episodes),
        "episode": worst,
        **{key: episodes[worst - 1][key] for key in keys},
        "short_pages": short(worst),
        "suspended_s": results["driver"].scalars["suspended_s"],
    }
    said = (
        f"{in_how_many(numbers['suspended'], numbers['of_episodes'], 'episodes')}"
        f"Episode {worst} ({numbers['direction']}, target {numbers['target_pages']:,} pages): the "
        f"guest was suspended at {numbers['end_s']:.1f} s, {numbers['short_pages']:,} pages short "
        f"of its target. In all it slept {numbers['suspended_s']:.1f} s."
    )
    return Evidence(numbers, said, "high", "the suspend was seen, and what the balloon had then")


def _done(episode: dict[str, Any]) -> bool:
    """Whether the worker moved all that it was asked for, or may have. What others moved back since
    it looks at when the host sends a target again."""
    moved = episode["inflated_pages" if episode["direction"] == "inflate" else "deflated_pages"]
    more = moved - episode["asked_pages"]
    whole = more >= 0 if episode["outcome"] != "reached" else more > 0
    return bool(episode["events_missing"] or whole)


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    also = f" This was the longest of {numbers['times']:,} times." if numbers["times"] > 1 else ""
    return (
        f"{in_how_many(numbers['episodes'], numbers['of_episodes'], 'episodes')}"
        f"Episode {numbers['episode']} ({numbers['direction']}, target "
        f"{numbers['target_pages']:,} pages): between {numbers['start_s']:.1f} s and "
        f"{numbers['end_s']:.1f} s the worker made no call for {numbers['rest_s']:.1f} s. Of "
        f"{numbers['asked_pages']:,} pages the episode gained {numbers['gained_pages']:,} "
        f"({numbers['outcome']}).{also}"
    )
