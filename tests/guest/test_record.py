# SPDX-License-Identifier: Apache-2.0
"""`balloontrace record` in a real guest: known balloon moves, exact counts, every way of ending."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.loads import MEMORY_BYTES, MIB_PAGES, move_balloon
from balloontrace.recording.reader import Recording, read_recording
from tests.guest.conftest import REMOTE, Recorder, balloon_counters, report_of

Fetch = Callable[..., Recording]

HALF = MEMORY_BYTES // 4096 // 2

RSS_BUDGET_BYTES, MINIMAL_RSS_BUDGET_BYTES = 8 << 20, 6 << 20
"""Beyond what the guest's Python takes by itself, which grows from version to version; the ring is
1 MiB of it. `record --minimal` takes 4.2 MiB as a rule, and 0.9 more in one run of four. `make
bench` holds it to 12 MiB in all, with the 7 of Python 3.11."""


@pytest.fixture(autouse=True)
def _empty_balloon(stock: Guest) -> None:
    move_balloon(stock, 0)


@pytest.mark.micro
def test_counts_equal_vmstat_and_qmp_to_the_page(stock: Guest, fetch: Fetch) -> None:
    before = balloon_counters(stock)
    recorder = Recorder(stock)
    move_balloon(stock, HALF + 7)  # no multiple of the driver's chunk of 256
    move_balloon(stock, 40 * MIB_PAGES)
    status, _, said = recorder.stop()
    after = balloon_counters(stock)

    recording = fetch(stock)
    report = report_of(recording)
    assert status == 0, said
    assert recording.trailer is not None
    assert recording.trailer["reason"] == "interrupted"
    assert report["complete"] is True
    assert report["lost_events"] == 0
    totals, checked = report["totals"], report["reconciliation"]
    assert totals["inflated_pages"] == HALF + 7 == after[0] - before[0]
    assert totals["deflated_pages"] == HALF - 40 * MIB_PAGES + 7 == after[1] - before[1]
    assert totals["net_pages"] == stock.balloon.actual_pages() == 40 * MIB_PAGES
    assert checked["agrees"] is True
    assert checked["exact"] is True
    assert checked["sums_agree"] is True
    inflate, deflate = report["episodes"]
    assert (inflate["direction"], inflate["target_pages"]) == ("inflate", HALF + 7)
    assert (deflate["direction"], deflate["target_pages"]) == ("deflate", 40 * MIB_PAGES)
    for episode in (inflate, deflate):
        assert episode["outcome"] == "reached"
        assert episode["amplification"] == 1.0
    assert report["findings"] == []
    assert report["findings_unchecked"] == {}
    assert [(c["cause"], c["pages"]) for c in report["causes"]] == [
        ("host", HALF - 40 * MIB_PAGES + 7)
    ]


@pytest.mark.one_kernel
def test_duration_ends_a_recording_without_any_event(stock: Guest, fetch: Fetch) -> None:
    recorder = Recorder(stock, "-d", "500ms")
    status, _, said = recorder.process.communicate()
    recording = fetch(stock)
    assert status == 0
    assert recording.trailer is not None
    assert recording.trailer["reason"] == "duration"
    assert "next: balloontrace report" in said
    span_ns = recording.trailer["ended_ns"] - recording.header["attached_ns"]
    assert span_ns >= 500_000_000
    assert report_of(recording)["totals"]["inflated_pages"] == 0


@pytest.mark.one_kernel
def test_command_ends_the_recording_and_is_not_protected_like_it(
    stock: Guest, fetch: Fetch
) -> None:
    script = "cat /proc/self/oom_score_adj; exit 3"
    recorder = Recorder(stock, "--", "sh", "-c", script)
    status, said_by_command, _ = recorder.process.communicate()
    trailer = fetch(stock).trailer
    own_score = stock.run("cat /proc/self/oom_score_adj").stdout
    assert status == 0
    assert said_by_command == own_score
    assert trailer is not None
    assert trailer["reason"] == "command"
    assert trailer["command"] == {"argv": ["sh", "-c", script], "status": 3}


@pytest.mark.one_kernel
def test_a_command_that_does_not_want_to_end_is_ended(stock: Guest, fetch: Fetch) -> None:
    stubborn = "trap '' TERM; touch /run/stubborn; while :; do sleep 1; done"
    recorder = Recorder(stock, "--", "sh", "-c", stubborn)
    stock.run("until [ -e /run/stubborn ]; do sleep 0.1; done; rm /run/stubborn")
    assert recorder.stop()[0] == 0
    trailer = fetch(stock).trailer
    assert trailer is not None
    assert trailer["reason"] == "interrupted"
    assert trailer["command"]["status"] == -signal.SIGKILL


@pytest.mark.one_kernel
def test_sigkill_loses_at_most_the_last_block(stock: Guest, fetch: Fetch) -> None:
    recorder = Recorder(stock)
    move_balloon(stock, 64 * MIB_PAGES)
    written = f"until [ $(stat -c %s {REMOTE}) -gt $size ]; do sleep 0.05; done"
    size = stock.run(["stat", "-c", "%s", REMOTE]).stdout.strip()
    stock.run(f"size={size}; {written}")  # a sample at least, so that what came before is there
    status, _, _ = recorder.stop(signal.SIGKILL)
    recording = fetch(stock)
    report = report_of(recording)
    assert status != 0
    assert recording.trailer is None
    assert report["complete"] is False
    assert report["totals"]["inflated_pages"] == 64 * MIB_PAGES
    assert stock.run("cat /sys/kernel/debug/kprobes/list").stdout == ""


@pytest.mark.one_kernel
def test_two_recorders_at_once_count_the_same(stock: Guest, fetch: Fetch) -> None:
    first = Recorder(stock)
    second = Recorder(stock, path="/root/second.btrace")
    move_balloon(stock, 32 * MIB_PAGES)
    for recorder in (second, first):
        assert recorder.stop()[0] == 0
        report = report_of(fetch(stock, recorder.path))
        assert report["totals"]["inflated_pages"] == 32 * MIB_PAGES
        assert report["reconciliation"]["agrees"] is True


@pytest.mark.micro
def test_bpftrace_counts_the_same(stock: Guest, kernel: str, fetch: Fetch) -> None:
    entry, leave = ("fentry", "fexit") if find_kernel(kernel).config else ("kprobe", "kretprobe")
    program = (
        f"{leave}:leak_balloon {{ @leaks = count(); @deflated = sum(retval); }} "
        f"{entry}:balloon_page_enqueue {{ @inflated = count(); }} "
        'BEGIN { printf("attached\\n"); }'
    )
    recorder = Recorder(stock)
    bpftrace = stock.popen(["bpftrace", "-e", program])
    while b"attached" not in bpftrace.stdout.readline():
        pass
    move_balloon(stock, 48 * MIB_PAGES)
    move_balloon(stock, 3)
    # bpftrace 0.17 misses a SIGINT that comes just before it sleeps.
    stock.run(f"while kill -INT {bpftrace.pid} 2> /dev/null; do sleep 1; done")
    _, theirs, _ = bpftrace.communicate()
    assert recorder.stop()[0] == 0
    recording = fetch(stock)
    report = report_of(recording)
    assert recording.trailer is not None
    leaks = recording.trailer["counters"]["leak"]["written"]
    assert f"@inflated: {report['totals']['inflated_pages']}\n" in theirs
    assert f"@deflated: {report['totals']['deflated_pages']}\n" in theirs
    assert f"@leaks: {leaks}\n" in theirs


@pytest.mark.oldest_and_newest
@pytest.mark.micro
@pytest.mark.parametrize(
    ("arguments", "budget_bytes"),
    [((), RSS_BUDGET_BYTES), (("--minimal",), MINIMAL_RSS_BUDGET_BYTES)],
)
def test_recorder_is_small_locked_and_the_last_victim(
    stock: Guest, arguments: tuple[str, ...], budget_bytes: int
) -> None:
    recorder = Recorder(stock, *arguments)
    move_balloon(stock, 128 * MIB_PAGES)
    pid = recorder.process.pid
    status = stock.run(f"cat /proc/{pid}/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    bare = stock.run("python3 -S -c 'print(open(\"/proc/self/status\").read())'").stdout
    bare_kib = int(bare.partition("VmRSS:")[2].split()[0])
    assert int(fields["VmHWM"].split()[0]) <= bare_kib + budget_bytes // 1024
    assert fields["VmLck"].split()[0] != "0"
    assert stock.run(f"cat /proc/{pid}/oom_score_adj").stdout.strip() == "-999"
    assert recorder.stop()[0] == 0


@pytest.mark.one_kernel
def test_nothing_stays_attached(stock: Guest) -> None:
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        Recorder(stock).stop(ending)
        assert stock.run("cat /sys/kernel/debug/kprobes/list").stdout == ""
        # An array of programs lets them go a moment after its last user has.
        stock.run("until ! bpftool prog list | grep -q kprobe; do sleep 0.1; done", timeout_s=10)


@pytest.mark.one_kernel
def test_the_command_line_begins_without_what_draws_tables(stock: Guest) -> None:
    show = "import sys, balloontrace.cli.app; print(sys.modules.get('rich'))"
    program = ["env", "PYTHONPATH=/opt/balloontrace", "python3", "-c", show]
    assert stock.run(program).stdout == "None\n"


@pytest.mark.one_kernel
def test_programs_that_were_changed_are_compiled_once(stock: Guest, fetch: Fetch) -> None:
    source = "/opt/balloontrace/balloontrace/tracers/bpf/balloon.c"
    stock.run(f"rm -rf /var/cache/balloontrace; cp {source} /tmp; echo '/* changed */' >> {source}")
    try:
        for origin in ("compiled", "cache"):
            recording = recorded(stock, fetch)
            assert recording.header["code"] == origin
    finally:
        stock.run(f"cp /tmp/balloon.c {source}")
    assert recorded(stock, fetch).header["code"] == "shipped"


def recorded(guest: Guest, fetch: Fetch) -> Recording:
    """A recording of 16 MiB in and out, which is exact."""
    recorder = Recorder(guest)
    move_balloon(guest, 16 * MIB_PAGES)
    move_balloon(guest, 0)
    assert recorder.stop()[0] == 0
    recording = fetch(guest)
    report = report_of(recording)
    assert report["totals"]["inflated_pages"] == 16 * MIB_PAGES
    assert report["reconciliation"]["agrees"] is True
    return recording


@pytest.mark.one_kernel
def test_stdout_takes_the_recording(stock: Guest, tmp_path: Path) -> None:
    streamed = stock.run("balloontrace record -o - -- echo noise > /root/streamed.btrace")
    assert "noise" in streamed.stderr
    local = tmp_path / "streamed.btrace"
    stock.fetch("/root/streamed.btrace", local)
    assert read_recording(str(local)).complete


_HOLDING = """
import fcntl, os, shutil, sys, time
fcntl.fcntl(0, 1031, 4096)  # F_SETPIPE_SZ
while not os.path.exists("/root/go"):
    time.sleep(0.05)
shutil.copyfileobj(sys.stdin.buffer, open("/root/held.btrace", "wb"))
"""
"""A reader that begins when it is told to, on a pipe that holds less than a second's samples."""


@pytest.mark.one_kernel
def test_a_reader_that_is_slow_holds_nothing_up(stock: Guest, fetch: Fetch) -> None:
    stock.run("rm -f /root/go /root/held.btrace /root/ready")
    stock.push(_HOLDING.encode(), "cat > /root/holding.py")
    pipeline = "balloontrace record -o - --ready-file /root/ready | python3 /root/holding.py"
    streaming = stock.popen(["sh", "-c", pipeline])
    stock.run("until [ -s /root/ready ]; do sleep 0.1; done", timeout_s=60)
    for _ in range(3):
        move_balloon(stock, HALF)
        move_balloon(stock, 0)
    stock.run("touch /root/go; kill -INT $(cat /root/ready)")
    assert streaming.communicate()[0] == 0
    recording = fetch(stock, "/root/held.btrace")
    assert recording.complete
    assert recording.trailer is not None
    assert recording.trailer["recorder"]["longest_read_gap_s"] < 3
    report = report_of(recording)
    assert report["reconciliation"]["agrees"] is True
    assert report["totals"]["inflated_pages"] == 3 * HALF


@pytest.mark.one_kernel
def test_existing_file_needs_f_and_a_symlink_is_never_followed(stock: Guest) -> None:
    stock.run("rm -f /root/link.btrace; echo kept > /root/kept; ln -s kept /root/link.btrace")
    for arguments, complaint in (
        ("-o /root/kept", "exists; overwrite it with -f"),
        ("-f -o /root/link.btrace", "cannot write /root/link.btrace"),
    ):
        done = stock.run(f"balloontrace record -d 1s {arguments}", check=False)
        assert done.returncode == 1
        assert complaint in done.stderr
        assert len(done.stderr.splitlines()) == 1
    # An old recording goes only when there is a new one to take its place.
    spoiled = "PYTHONPATH=/tmp/lattice:/opt/balloontrace python3 -m balloontrace"
    stock.run("mkdir -p /tmp/lattice/bcc && touch /tmp/lattice/bcc/__init__.py")
    command = f"{spoiled} record --compiled -f -d 1s -o /root/kept"
    assert stock.run(command, check=False).returncode == 3
    assert stock.run("cat /root/kept; rm -r /tmp/lattice").stdout == "kept\n"
    stock.run("balloontrace record -f -d 300ms -o /root/kept")
    assert stock.run("head -c 7 /root/kept | tail -c 6").stdout == "BTRACE"


@pytest.mark.one_kernel
@pytest.mark.parametrize(
    ("prepare", "command", "complaint"),
    [
        (
            "true",
            "setpriv --reuid=nobody --clear-groups balloontrace record",
            "needs root, or CAP_BPF and CAP_PERFMON; run it with sudo",
        ),
        (
            "mkdir -p /tmp/lattice/bcc && touch /tmp/lattice/bcc/__init__.py",
            "PYTHONPATH=/tmp/lattice:/opt/balloontrace python3 -m balloontrace record --compiled",
            "unrelated lattice package; pip uninstall bcc; apt install python3-bpfcc",
        ),
        ("rmmod virtio_balloon", "balloontrace record", "not loaded; modprobe virtio_balloon"),
    ],
    ids=["not root", "lattice bcc", "no driver"],
)
def test_what_is_missing_is_said_in_one_line(
    stock: Guest, prepare: str, command: str, complaint: str
) -> None:
    stock.run(prepare)
    try:
        done = stock.run(f"cd /tmp; {command} -d 1s -o /tmp/never.btrace", check=False)
    finally:
        stock.run("modprobe virtio_balloon; rm -rf /tmp/lattice")
    assert done.returncode == 3
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert stock.run("ls /tmp/never.btrace", check=False).returncode != 0


@pytest.mark.one_kernel
def test_marks_stand_between_the_hosts_commands(stock: Guest, fetch: Fetch) -> None:
    refused = stock.run(["balloontrace", "mark", "too early"], check=False)
    assert refused.returncode == 1
    assert "no recording takes marks; begin one with: balloontrace record --mark" in refused.stderr

    recorder = Recorder(stock, "--mark")
    stock.run("mkfifo -m 600 /run/balloontrace/mark.4000000")  # of a recorder that was killed
    for words, target in (("grow", 64 * MIB_PAGES), ("shrink", 0)):
        said = stock.run(["balloontrace", "mark", words])
        assert said.stdout.endswith(f": {words}\n")
        move_balloon(stock, target)
    stock.run("head -c 5000 /dev/urandom | tr -d '\\n' > $(echo /run/balloontrace/mark.*)")
    stock.run(["balloontrace", "mark", "done", "\x1b[31m"])
    assert recorder.stop()[0] == 0
    assert stock.run("ls /run/balloontrace").stdout == ""
    assert stock.run(["balloontrace", "mark", "too late"], check=False).returncode == 1

    recording = fetch(stock)
    report = report_of(recording)
    assert [mark["text"] for mark in report["marks"]] == ["grow", "shrink", "done \\x1b[31m"]
    grow, shrink, done = (mark["at_s"] for mark in report["marks"])
    inflate, deflate = report["episodes"]
    assert grow < inflate["start_s"] < inflate["end_s"] < shrink
    assert shrink < deflate["start_s"] < deflate["end_s"] < done
    assert recording.trailer is not None
    assert recording.trailer["marks"] == {"written": 3, "ignored": 1}
    assert report["complete"] is True
    assert report["reconciliation"]["exact"] is True


@pytest.mark.one_kernel
def test_of_a_long_recording_the_last_part_is_kept(stock: Guest, fetch: Fetch) -> None:
    move_balloon(stock, 0)
    Recorder(stock, "--ring", "4s").stop(signal.SIGKILL)
    recorder = Recorder(stock, "--ring", "4s", "--", "sh", "-c", "sleep 1000")
    segments = f"{recorder.path}.segments"
    move_balloon(stock, 50 * MIB_PAGES)
    # Until what was written when it had moved is older than what is to be kept, and the next, too.
    stock.run(
        f"cd {segments}; for _ in 1 2; do last=$(ls | tail -n 1);"
        " while [ -e $last ]; do sleep 0.2; done; done"
    )
    before = balloon_counters(stock)
    move_balloon(stock, 80 * MIB_PAGES)
    taken_in = balloon_counters(stock)[0] - before[0]
    status, _, said = recorder.stop()
    assert status == 0, said
    recording = fetch(stock)
    assert recording.trailer is not None
    assert recording.trailer["command"]["status"] == -signal.SIGTERM
    report = report_of(recording)
    assert report["complete"] is True
    assert report["totals"]["inflated_pages"] == taken_in == 30 * MIB_PAGES
    assert report["duration_s"] < 60
    assert report["reconciliation"]["agrees"] is True
    (left,) = stock.run(["ls", segments]).stdout.split()
    assert f"what was kept before is in {segments}/{left}" in said
    earlier = fetch(stock, f"{segments}/{left}")
    assert (earlier.trailer, earlier.damage) == (None, [])
    stock.run(["rm", "-r", segments])
    move_balloon(stock, 0)
