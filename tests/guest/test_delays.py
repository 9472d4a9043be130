# SPDX-License-Identifier: Apache-2.0
"""Task delays and uevents through the netlink process, in a real guest, against other counters."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.remote import RemoteProcess
from tests.guest.guests import Guests
from tests.unit.tracers.samplers.test_delays import IN_HEADER, OFFSETS

SWITCH = "/proc/sys/kernel/task_delayacct"
MEMORY_DELAYS = ("blkio", "swapin", "reclaim", "thrashing", "compact", "wpcopy")
COPIED_PAGES = 2000
RSS_BUDGET_BYTES = 32 << 20

LOAD = f"""
import mmap, os, sys
open("/proc/self/comm", "w").write("load")
os.makedirs("/sys/fs/cgroup/load", exist_ok=True)
open("/sys/fs/cgroup/cgroup.subtree_control", "w").write("+memory")
open("/sys/fs/cgroup/load/memory.max", "w").write(str(48 << 20))
print("ready", flush=True)
sys.stdin.readline()
open("/sys/fs/cgroup/load/cgroup.procs", "w").write(str(os.getpid()))
file = os.open("/var/tmp/load", os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # what wrote it has left it in the cache
while os.read(file, 1 << 20):  # twice what may stay cached: the reader reclaims
    pass
direct = os.open("/var/tmp/load", os.O_RDONLY | os.O_DIRECT)
for part in range(32):  # no cache and no reading ahead: each waits for the disk
    os.preadv(direct, [mmap.mmap(-1, 1 << 20)], part << 20)
pages = mmap.mmap(-1, {COPIED_PAGES} * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
pages.madvise(mmap.MADV_NOHUGEPAGE)
for page in range({COPIED_PAGES}):
    pages[page * 4096] = 1
keep, end = os.pipe()
if os.fork() == 0:
    os.close(end)
    os.read(keep, 1)
    os._exit(0)
for page in range({COPIED_PAGES}):  # each is copied, for the child has it too
    pages[page * 4096] = 2
print("done", flush=True)
sys.stdin.readline()
"""

ASK = """
import json, os, select, sys
from balloontrace.tracers.record.netlink_client import NetlinkProcess
process = NetlinkProcess(0)
process.request([int(tid) for tid in sys.argv[1:]])
said = process.read()
while process.running and not any("delays" in content for content in said):
    select.select([process], [], [])
    said += process.read()
print(json.dumps(said + process.finish([])))
"""

RAW = """
import os, socket, struct, sys
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)  # NETLINK_GENERIC
netlink.bind((0, 0))
def attributes(data):
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        yield kind, data[4:size]
        data = data[size + 3 & ~3:]
def request(family, command, kind, value):
    value = struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    body = struct.pack("=BBH", command, 1, 0) + value
    netlink.send(struct.pack("=IHHII", 16 + len(body), family, 1, 0, 0) + body)
    return dict(attributes(netlink.recv(65536)[20:]))
(family,) = struct.unpack("=H", request(16, 3, 2, b"TASKSTATS\\0")[1])  # GETFAMILY, by name
aggregate = request(family, 1, 1, struct.pack("=I", int(sys.argv[1])))[4]  # GET, by pid
print(dict(attributes(aggregate))[3].hex())
"""

OWNER = """
import json, select, sys
from balloontrace.tracers.record.netlink_client import NetlinkProcess
process = NetlinkProcess(0)
print(process.pid, flush=True)
while process.running:
    select.select([process], [], [])
    for content in process.read():
        print(json.dumps(content), flush=True)
select.select([sys.stdin], [], [])
"""

TRACEFS = "/sys/kernel/tracing"
TRACING = f"{TRACEFS}/instances/delays"
TRACE = f"""
mkdir {TRACING}
cd {TRACING}
echo mono > trace_clock
echo $pid > set_event_pid
for kind in memcg direct; do
    echo 1 > events/vmscan/mm_vmscan_${{kind}}_reclaim_begin/enable
    echo 1 > events/vmscan/mm_vmscan_${{kind}}_reclaim_end/enable
done
"""


def python(path: str) -> list[str]:
    return ["env", "PYTHONPATH=/opt/balloontrace", "python3", path]


@pytest.fixture
def guest(stock: Guest, guests: Guests) -> Guest:
    """The guest, with the programs above and what they read."""

    def prepare() -> None:
        for name, text in (("load", LOAD), ("ask", ASK), ("raw", RAW), ("owner", OWNER)):
            stock.run(f"cat > /root/{name}.py", input=text)
        stock.run("head -c 100M /dev/zero > /var/tmp/load; sync")

    guests.prepared((stock, __name__), prepare)
    return stock


@pytest.fixture
def switchable(guest: Guest) -> Iterator[bool]:
    """Whether delay accounting can be switched (e4042ad49235); put back to off afterwards."""
    can = guest.run(f"test -e {SWITCH}", check=False).returncode == 0
    yield can
    if can:
        guest.run(f"echo 0 > {SWITCH}")


class Load:
    """A task that waits for a word, reclaims and copies pages, and waits again."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.process: RemoteProcess = guest.popen(python("/root/load.py"), stdin=subprocess.PIPE)
        self.pid = self.process.pid
        assert self.process.stdout.readline() == b"ready\n"

    def work(self) -> None:
        self.process.stdin.write(b"\n")
        assert self.process.stdout.readline() == b"done\n"

    def end(self) -> None:
        self.process.stdin.write(b"\n")
        self.process.communicate()


@pytest.fixture
def load(guest: Guest, switchable: bool) -> Iterator[Load]:
    """A load that began while delays were counted."""
    if switchable:
        guest.run(f"echo 1 > {SWITCH}")
    running = Load(guest)
    yield running
    running.end()


def ask(guest: Guest, *tids: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the netlink process says at its start, and what it says of these tasks."""
    argv = [*python("/root/ask.py"), *map(str, tids)]
    said = json.loads(guest.run(argv).stdout)
    (start,) = (content for content in said if "delayacct" in content)
    answers = [content["delays"] for content in said if "delays" in content]
    return start, answers[0]


def traced_reclaim(guest: Guest, load: Load) -> tuple[int, int]:
    """How often the load reclaimed while it worked, and for how many ns, by the tracepoints."""
    guest.run(f"mountpoint -q {TRACEFS} || mount -t tracefs tracefs {TRACEFS}")
    guest.run(f"pid={load.pid}; {TRACE}")
    load.work()
    lines = guest.run(f"cat {TRACING}/trace; rmdir {TRACING}").stdout.splitlines()
    count = span_ns = 0
    for line in lines:
        found = re.search(r"([0-9.]+): mm_vmscan_\w+_reclaim_(begin|end):", line)
        if found:
            at_ns = round(float(found[1]) * 1e9)
            count += found[2] == "begin"
            span_ns += at_ns if found[2] == "end" else -at_ns
    return count, span_ns


def test_delays_equal_what_other_counters_say(guest: Guest, load: Load) -> None:
    traced_count, traced_ns = traced_reclaim(guest, load)
    start, answer = ask(guest, load.pid)
    delays = answer[str(load.pid)]
    _, waited_ns, turns = guest.run(f"cat /proc/{load.pid}/schedstat").stdout.split()
    stat = guest.run(f"cat /proc/{load.pid}/stat").stdout.rsplit(") ")[1].split()
    assert start["delayacct"] == "on"
    assert delays["comm"] == "load"
    assert delays["cpu"] == [int(turns), int(waited_ns)]
    # The tracepoints are around what is counted. A wait for which the scheduler's clock stood
    # still, as it does for short ones where the TSC is not stable, is none (delayacct_end).
    assert 0.8 * traced_count < delays["reclaim"][0] <= traced_count
    assert 0.5 * traced_ns < delays["reclaim"][1] < 1.1 * traced_ns
    assert delays["blkio"][0] > 0
    assert delays["blkio"][1] // 10_000_000 == int(stat[39])  # delayacct_blkio_ticks, proc(5)
    if "wpcopy" in delays:  # version 13
        assert COPIED_PAGES <= delays["wpcopy"][0] < 1.5 * COPIED_PAGES
    began_ns = int(stat[19]) * 10_000_000  # starttime, in ticks
    assert delays["start_ns"] == pytest.approx(began_ns, abs=1_000_000_000)


def test_delays_stand_where_the_kernels_header_has_them(guest: Guest, load: Load) -> None:
    load.work()
    start, answer = ask(guest, load.pid)
    raw = bytes.fromhex(guest.run(["python3", "/root/raw.py", str(load.pid)]).stdout)
    at = OFFSETS[str(start["taskstats_version"])]
    assert int.from_bytes(raw[:2], "little") == start["taskstats_version"]
    assert len(raw) == at["size"]
    for name in ("cpu", *MEMORY_DELAYS):
        field = IN_HEADER[name]
        if f"{field}_count" in at:
            pair = [at[f"{field}_count"], at[f"{field}_delay_total"]]
            inside = [int.from_bytes(raw[place : place + 8], "little") for place in pair]
            assert answer[str(load.pid)][name] == inside, name
        else:
            assert name not in answer[str(load.pid)]


def test_what_is_not_counted_is_said(guest: Guest, switchable: bool) -> None:
    start, _ = ask(guest, 1)
    if not switchable:
        assert (start["delayacct"], start["since_boot"]) == ("on", True)
        return
    assert (start["delayacct"], start["since_boot"]) == ("off", False)
    older = Load(guest)
    guest.run(f"echo 1 > {SWITCH}")
    older.work()
    start, answer = ask(guest, older.pid, *kernel_threads(guest))
    older.end()
    assert (start["delayacct"], start["since_boot"]) == ("on", False)
    assert all(task["cpu"][0] > 0 for task in answer.values())
    uncounted = [task[name] for task in answer.values() for name in MEMORY_DELAYS if name in task]
    assert set(map(tuple, uncounted)) == {(0, 0)}


def kernel_threads(guest: Guest) -> list[int]:
    return [int(tid) for tid in guest.run("pgrep kswapd0; pgrep -o kworker").stdout.split()]


@pytest.mark.one_kernel
def test_a_task_that_is_not_there_is_left_out(guest: Guest) -> None:
    _, answer = ask(guest, 1, 4_000_000)
    assert list(answer) == ["1"]


class Owner:
    """A process that has a netlink process and passes on what that says."""

    def __init__(self, guest: Guest) -> None:
        self.process = guest.popen(python("/root/owner.py"), stdin=subprocess.PIPE)
        self.netlink = int(self.process.stdout.readline())
        self.until("uevents")

    def until(self, key: str) -> dict[str, Any]:
        """The next thing said that has this key."""
        while key not in (said := json.loads(self.process.stdout.readline())):
            pass
        return dict(said)


@pytest.fixture
def owner(guest: Guest) -> Iterator[Owner]:
    started = Owner(guest)
    yield started
    if started.process.poll() is None:
        started.process.send_signal(signal.SIGKILL)
        started.process.communicate()


@pytest.mark.one_kernel
def test_the_drivers_coming_and_going_is_forwarded(guest: Guest, owner: Owner) -> None:
    guest.run(
        "cd /sys/bus/virtio/drivers/virtio_balloon; device=$(echo virtio*);"
        "echo $device > unbind; echo $device > bind;"
        "echo change > /sys/class/net/lo/uevent; rmmod virtio_balloon; modprobe virtio_balloon"
    )
    seen = []
    while ("add", "module") not in seen:
        event = owner.until("uevent")["uevent"]
        seen.append((event["action"], event["subsystem"]))
    device, module = "virtio", "module"
    assert [what for what, of in seen if of == device] == ["unbind", "bind", "unbind", "bind"]
    assert [what for what, of in seen if of == module] == ["remove", "add"]


@pytest.mark.one_kernel
def test_it_is_small_dispensable_and_deaf_to_ctrl_c(guest: Guest, owner: Owner) -> None:
    guest.kill(owner.netlink, signal.SIGINT)
    status = guest.run(f"cat /proc/{owner.netlink}/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(fields["VmHWM"].split()[0]) * 1024 <= RSS_BUDGET_BYTES
    assert guest.run(f"cat /proc/{owner.netlink}/oom_score_adj").stdout == "200\n"
    assert owner.process.poll() is None


@pytest.mark.one_kernel
def test_its_death_is_noted_and_harms_nobody(guest: Guest, owner: Owner) -> None:
    guest.kill(owner.netlink, signal.SIGKILL)
    assert owner.until("delays")["delays"] == "ended"
    assert owner.process.poll() is None


@pytest.mark.one_kernel
def test_it_ends_with_an_owner_that_was_killed(guest: Guest, owner: Owner) -> None:
    guest.kill(owner.process.pid, signal.SIGKILL)
    owner.process.communicate()
    guest.run(
        f"for i in $(seq 100); do [ -e /proc/{owner.netlink} ] || exit 0; sleep 0.1; done; false"
    )
