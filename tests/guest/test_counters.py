# SPDX-License-Identifier: Apache-2.0
"""`record --counters` in real guests: beside a trace, and where there can be none."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MIB_PAGES, move_balloon
from balloontrace.recording.reader import Recording
from tests.guest.conftest import Recorder, balloon_counters, report_of

Fetch = Callable[..., Recording]

COUNTED = "/root/counted.btrace"
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]

NOBODYS = "/tmp/counted.btrace"
READY = "/tmp/counted.ready"
UNPRIVILEGED = (
    f"rm -f {NOBODYS} {READY}; "
    f"exec balloontrace record --counters -o {NOBODYS} --ready-file {READY}"
)

READS_FOR_EVER = "while :; do cat /root/cache > /dev/null; done"


@pytest.mark.one_kernel
def test_the_shrinkers_no_op_is_found_without_tracing(shrinker: Guest, fetch: Fetch) -> None:
    move_balloon(shrinker, 0)
    shrinker.run("truncate -s 700M /root/cache")
    counted = Recorder(shrinker, "--counters", path=COUNTED)
    traced = Recorder(shrinker)
    reader = shrinker.popen(["sh", "-c", READS_FOR_EVER])
    shrinker.balloon.set_target_pages(700 * MIB_PAGES)
    taken_back = balloon_counters(shrinker)[1] + 400 * MIB_PAGES
    now = "$(awk '/balloon_deflate/ {print $2}' /proc/vmstat)"
    shrinker.run(f"until [ {now} -gt {taken_back} ]; do sleep 0.2; done")
    reader.kill_group()
    reader.communicate()
    shrinker.run("rm /root/cache")
    move_balloon(shrinker, 0)
    for recorder in (traced, counted):
        status, _, said = recorder.stop()
        assert status == 0, said

    by_trace, by_counters = report_of(fetch(shrinker)), report_of(fetch(shrinker, COUNTED))
    assert by_trace["reconciliation"]["exact"] is True
    for total in ("inflated_pages", "deflated_pages", "net_pages"):
        assert by_counters["totals"][total] == by_trace["totals"][total]
    findings = {finding["id"]: finding["certainty"] for finding in by_trace["findings"]}
    assert findings["busy-no-op"] == "high"
    (finding,) = by_counters["findings"]
    assert (finding["id"], finding["certainty"]) == ("busy-no-op", "medium")
    assert by_counters["counters"]["kworker_cpu_s"] > 0


@pytest.mark.oldest_and_newest
@pytest.mark.micro
def test_it_takes_no_privilege(stock: Guest, fetch: Fetch) -> None:
    move_balloon(stock, 0)
    refused = stock.run([*AS_NOBODY, "balloontrace", "record", "-o", "/dev/null"], check=False)
    assert refused.returncode == 3
    assert "record --counters" in refused.stderr
    assert refused.stderr.count("\n") == 1
    before = balloon_counters(stock)
    recorder = stock.popen([*AS_NOBODY, "sh", "-c", UNPRIVILEGED])
    stock.run(f"until [ -e {READY} ]; do sleep 0.1; done")
    move_balloon(stock, 300 * MIB_PAGES + 7)
    move_balloon(stock, 0)
    recorder.send_signal(signal.SIGINT)
    status, _, said = recorder.communicate()
    assert status == 0, said
    after = balloon_counters(stock)

    report = report_of(fetch(stock, NOBODYS))
    totals = report["totals"]
    assert report["complete"] is True
    assert totals["inflated_pages"] == after[0] - before[0] == 300 * MIB_PAGES + 7
    assert totals["deflated_pages"] == after[1] - before[1] == 300 * MIB_PAGES + 7
    assert report["findings"] == []
