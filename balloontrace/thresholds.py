# SPDX-License-Identifier: Apache-2.0
"""From where on a finding is one: numbers that both the analyses of a recording and the triggers in
the guest go by.

Imports nothing, for it is loaded in the guest. Pages are balloon pages, 4 KiB. A number that only
an analysis needs stands in that.
"""

from __future__ import annotations

RECLAIMED_SHARE = 0.25
"""busy-no-op: of the pages an episode inflated, reclaim took back at least this share: inflation
did a third more work than was asked. The founding experiment shows 0.8 to 0.9, a driver without a
balloon shrinker 0."""

RECLAIMED_PAGES = 2560
"""And at least ten chunks of 256 (10 MiB): a few chunks in a short recording show nothing."""


def is_no_op(inflated_pages: int, reclaimed_pages: int) -> bool:
    """Whether reclaim took back much of what inflation took in."""
    share = RECLAIMED_SHARE * inflated_pages
    return inflated_pages > 0 and reclaimed_pages >= max(RECLAIMED_PAGES, share)


RETAKEN_PAGES = 2560
"""oom-ping-pong: ten calls of the notifier, each of which gives back 256 pages: a few may be taken
again while a target that has just been changed is on its way."""

RETAKEN_SHARE = 0.25
"""And at least a quarter of what was given back. Without a host that sends its target again, and
with no inflation in flight, it is 0."""

BOUT_REST_S = 30.0
"""Calls of the OOM notifier further apart belong to different bouts. In the near-livelock of a
crawling guest the slowest call came 10 s after the one before."""

PUFF_NS = 200_000_000
"""What the driver sleeps when it gets no page (fill_balloon, drivers/virtio/virtio_balloon.c). The
worker's shorter sleeps are those of reclaim."""

PUFFS = 5
"""out-of-puff: one second of sleeping. An inflation that finds memory never sleeps; one or two
sleeps are kswapd being late."""

STANDSTILL_S = 1.0
"""Without progress for so long, if the target was reached in the end. Inflation against page cache
that is in use sleeps now and then, and goes on after each sleep: kswapd being late again (once 13
sleeps within 17 s, the longest time without progress 0.22 s: page-cache at 2 GiB on an emulated CPU
without ERMS, which clears pages faster)."""

SLOW_ACK_S = 0.1
"""slow-host-ack: an ack tells of at most 256 pages (1 MiB). A host moves 1 GiB/s, so 1 ms; in
guests without hardware virtualisation, on a machine with twice the work it can do, the slowest of
60,000 took 87 ms."""

SLOW_ACKS_TOTAL_S = 2.0
"""Spent in acks of SLOW_ACK_S or more, a hundred times what an ack takes. One preempted thread of
QEMU is not enough: on a machine with four times the work it can do, one ack took 0.6 s."""

SLOW_ACKS_SHARE = 0.25
"""And so much of the time in which the balloon was inflated and deflated: on that machine it was up
to 0.07. Where it was 0.50, beside two other emulators and a busy loop on two CPUs, QEMU's answers
to its monitor were as late: that is a slow host."""

FEW_SLOW_ACKS = 3
"""Fewer slow acks than this may be the guest itself having been stopped meanwhile."""

HELD_SHARE = 0.1
"""held-under-pressure: of RAM: a smaller balloon is not what starves a guest."""

AVAILABLE_SHARE = 0.1
"""Of RAM, in MemAvailable: with more, reclaim finds what nobody needs. It is the floor, too: what a
host should leave its guest."""

FULL_SHARE = 0.1
"""Of the time in which no task could run for lack of memory (PSI)."""

MAJOR_FAULTS_PER_S, STALLS_PER_S, SWAP_INS_PER_S = 20.0, 10.0, 100.0
"""One of these, beside: reading a large file over and over stalls its reader (PSI) and refaults, as
in the founding experiment, but that is what page cache is for. There major faults were 1 a second,
and no allocation stalled; in guests that starve they are hundreds."""

STARVED_NS = 10_000_000_000
"""At rest for so long, and the same of the time that is looked at: a burst is no starvation."""

MOVED_SHARE = 0.005
"""Of RAM, between two samples: the balloon moves. What the OOM notifier gives back, 1 MiB at a
time, does not end a rest."""

ONLY_STALLS_PER_S = 1.0
"""Less than this of all that is read or swapped in again: then who stalled may be the size worker
itself, which waits for memory to put into the balloon."""

MINUTE_NS = 60_000_000_000
"""So far back the kernel's totals are looked at."""

AWAY_S = 1.0
"""driver-gone: shorter absences are a driver bound again on purpose, whatever it gave back: the
host lends that and takes it again, and its target is followed."""

MEMCG_BALLOON_SHARE = 0.01
"""memcg-oom: of the guest's memory. A smaller balloon would have been no help to anybody."""
