# SPDX-License-Identifier: Apache-2.0
"""Task delays (Documentation/accounting/delay-accounting.rst): what a task waited for, since start.

Read through taskstats with pyroute2, in the netlink process (tracers/netlink.py) and never in the
recorder. pyroute2 finds the family and speaks netlink; it decodes the delays of memory for one
version of `struct taskstats` only, so the layout is declared here.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import struct
import sys
import time
from collections.abc import Iterable
from typing import Any, NamedTuple


class Field(NamedTuple):
    """Where a field of struct taskstats stands: `since` this version at byte `at`."""

    since: int
    at: int
    at_v15: int


COMM = Field(1, 80, 128)
ELAPSED_US = Field(2, 144, 192)
DELAYS: dict[str, Field] = {
    "cpu": Field(1, 16, 16),
    "blkio": Field(1, 32, 48),
    "swapin": Field(1, 48, 80),
    "reclaim": Field(7, 312, 360),
    "thrashing": Field(9, 328, 392),
    "compact": Field(11, 352, 432),
    "wpcopy": Field(13, 400, 496),
}
"""Name as getdelays prints it (tools/accounting/getdelays.c; `reclaim` is `freepages` in the
header) -> place of its `_count`, which its `_delay_total` in ns follows.

From include/uapi/linux/taskstats.h. Fields are appended, with one exception: version 15 (6.14)
put new ones in between, and 0bf2d838de1f moved them to the end in version 16.
"""

MISPLACED_VERSION = 15

_PAIR = struct.Struct("=QQ")
_U64 = struct.Struct("=Q")
_COMM_BYTES = 32

DELAYACCT = "/proc/sys/kernel/task_delayacct"
"""Since e4042ad49235 (5.14), and 0 unless booted with `delayacct`."""


class Reading(NamedTuple):
    """One task's taskstats. elapsed_ns: since it started; delays: name -> (count, total ns), for
    the delays this kernel's version has."""

    version: int
    comm: str
    elapsed_ns: int
    delays: dict[str, tuple[int, int]]


def decode(raw: bytes) -> Reading:
    """The reading in the bytes of one struct taskstats. Raises ValueError if they are too few.

    A field must be in the version and in the bytes: which version a kernel calls itself, and how
    much it sends, both come from it.
    """
    if len(raw) < ELAPSED_US.at_v15 + _U64.size:  # no version is as small as that
        raise ValueError(f"a struct taskstats of {len(raw)} bytes")
    (version,) = struct.unpack_from("=H", raw)

    def place(field: Field) -> int:
        return field.at_v15 if version == MISPLACED_VERSION else field.at

    comm = raw[place(COMM) : place(COMM) + _COMM_BYTES].split(b"\0")[0]
    (elapsed_us,) = _U64.unpack_from(raw, place(ELAPSED_US))
    delays = {
        name: _PAIR.unpack_from(raw, place(field))
        for name, field in DELAYS.items()
        if version >= field.since and place(field) + _PAIR.size <= len(raw)
    }
    return Reading(version, comm.decode("utf-8", "surrogateescape"), elapsed_us * 1000, delays)


def prefer_bare_pyroute2() -> None:
    """Have `import pyroute2.x` load only x and what x needs, if pyroute2 is not loaded yet.

    The package's own __init__ loads all of it: 38 MiB and 0.6 s instead of 18 MiB and 0.06 s
    with 0.7.2, more than a small guest should pay for being looked at.
    """
    spec = importlib.util.find_spec("pyroute2")
    if spec is not None and "pyroute2" not in sys.modules:
        sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)  # made, never executed


class TaskDelays:
    """A socket to taskstats.

    Raises ImportError without pyroute2, OSError if this kernel has no taskstats (CONFIG_TASKSTATS)
    or does not let us ask it (it takes CAP_NET_ADMIN).
    """

    def __init__(self) -> None:
        from pyroute2.netlink import NLM_F_REQUEST
        from pyroute2.netlink.exceptions import NetlinkError
        from pyroute2.netlink.generic import GenericNetlinkSocket
        from pyroute2.netlink.taskstats import TASKSTATS_CMD_GET, taskstatsmsg, tcmd

        class RawStats(taskstatsmsg):  # type: ignore[misc] # pyroute2 has no types
            """A reply whose struct taskstats stays bytes."""

            class aggr_pid(taskstatsmsg.aggr_pid):  # type: ignore[misc]
                """pyroute2 looks the class up by this name."""

                nla_map = tuple(
                    (name, "binary" if name == "TASKSTATS_TYPE_STATS" else kind)
                    for name, kind in taskstatsmsg.aggr_pid.nla_map
                )

        def ask(tid: int) -> Any:
            request = tcmd()
            request["cmd"], request["version"] = TASKSTATS_CMD_GET, 1
            request["attrs"].append(["TASKSTATS_CMD_ATTR_PID", tid])
            # A tuple until 0.8, a generator since 0.9.
            return next(iter(socket.nlm_request(request, socket.prid, msg_flags=NLM_F_REQUEST)))

        try:
            # Not TaskStats: its bind() names the message class itself, and since 0.9 takes none.
            socket = GenericNetlinkSocket()
            socket.bind("TASKSTATS", RawStats)
        except NetlinkError as error:
            raise OSError(error.code, "no taskstats") from None
        self._ask = ask
        self._error = NetlinkError

    def read(self, tid: int) -> Reading | None:
        """What `tid` has waited for since it started; None if there is no such task (any more).

        Raises OSError if the kernel refuses.
        """
        try:
            reply = self._ask(tid)
        except self._error as error:
            code = int(error.code)
            if code == errno.ESRCH:
                return None
            raise OSError(code, os.strerror(code)) from None
        stats = reply.get_attr("TASKSTATS_TYPE_AGGR_PID").get_attr("TASKSTATS_TYPE_STATS")
        return decode(bytes(stats))

    def read_all(self, tids: Iterable[int]) -> dict[str, dict[str, Any]]:
        """What a sample block holds on each of `tids` that lives: comm, start_ns
        (CLOCK_MONOTONIC), and each delay as [count, total ns]. Raises OSError."""
        found = {}
        for tid in tids:
            reading = self.read(tid)
            if reading is not None:
                start_ns = time.monotonic_ns() - reading.elapsed_ns
                found[str(tid)] = {"comm": reading.comm, "start_ns": start_ns, **reading.delays}
        return found


def accounting(own: Reading) -> dict[str, Any]:
    """Whether delays are counted, for the recording. own: of this process, which runs since now.

    delayacct: "on", "off", or "absent" (CONFIG_TASK_DELAY_ACCT); since_boot: whether tasks that
    are older than any sysctl are counted too; taskstats_version.
    """
    with open("/proc/cmdline", encoding="ascii", errors="replace") as cmdline:
        parameters = cmdline.read().split()
    try:
        with open(DELAYACCT, encoding="ascii") as switch:
            state = "on" if int(switch.read()) else "off"
        since_boot = state == "on" and "delayacct" in parameters
    except FileNotFoundError:
        # Before e4042ad49235: on unless booted with `nodelayacct`, and then not even the time on
        # the run queue is told.
        counted = own.delays["cpu"][0] > 0
        state = "on" if counted else "off" if "nodelayacct" in parameters else "absent"
        since_boot = counted
    return {"delayacct": state, "since_boot": since_boot, "taskstats_version": own.version}
