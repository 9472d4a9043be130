# SPDX-License-Identifier: Apache-2.0
"""What `record --counters` costs the machine it runs on: this one, no guest is needed.

Prints the CPU time of its process over a stretch that begins when it has begun to read, and how
much of that is the kernel's, which makes the text of /proc anew for each reading.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STRETCH_S = 60.0
BUDGET_SHARE = 0.005
"""Of one CPU."""


def cpu_s(pid: int) -> tuple[float, float]:
    """CPU time that a process has used: its own, the kernel's."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    ticks_s = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks_s, int(fields[12]) / ticks_s


def main() -> int:
    """Measure and print; 1 if it costs more than it may."""
    with tempfile.TemporaryDirectory() as directory:
        ready, path = Path(directory, "ready"), Path(directory, "counters.btrace")
        os.mkfifo(ready)
        options = ["--counters", "-o", str(path), "--ready-file", str(ready)]
        recorder = subprocess.Popen([sys.executable, "-m", "balloontrace", "record", *options])
        try:
            ready.read_bytes()  # blocks until it reads counters
            before_s = cpu_s(recorder.pid)
            time.sleep(STRETCH_S)
            used_s = [now - then for now, then in zip(cpu_s(recorder.pid), before_s, strict=True)]
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait()
        a_day = path.stat().st_size / STRETCH_S * 86400 / 1e6
    print(f"record --counters, Linux {platform.release()}, {os.cpu_count()} CPUs:")
    share, kernel = sum(used_s) / STRETCH_S, used_s[1] / STRETCH_S
    print(
        f"{share * 100:.2f} % of one CPU (at most {BUDGET_SHARE * 100}), of which the kernel takes "
        f"{kernel * 100:.2f} to make the text that is read; {a_day:.0f} MB a day"
    )
    return int(share > BUDGET_SHARE)


if __name__ == "__main__":
    sys.exit(main())
