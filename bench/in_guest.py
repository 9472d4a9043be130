# SPDX-License-Identifier: Apache-2.0
"""Runs inside a guest: seconds from exec to attached, of several ways to trace the same functions.

Prints one JSON object per line: {"tool": ..., "seconds": ..., "rss_bytes": ...}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

from balloontrace.tracers.attach.seams import SEAMS, Probe
from balloontrace.tracers.attach.state import number_of_call

PLAIN_BCC = "plain BCC, kernel headers"
BPFTRACE = "bpftrace"
OURS = "balloontrace record"
COMPILED = "balloontrace record --compiled"
ONE_FILE = "the one file"

RECORDING = "/root/bench.btrace"
PYZ = "/root/balloontrace-record.pyz"
"""Where it must lie: footprint.py puts it there."""


def probes() -> list[Probe]:
    """The kprobes that balloontrace attaches here, less those that only it can.

    A name that stands for two functions (vp_get) is refused to the other two by the kernel.
    """
    with open("/proc/kallsyms", encoding="ascii") as kallsyms:
        there = Counter(line.split()[2] for line in kallsyms)
    wanted: list[Probe] = []
    for seam in SEAMS:
        for rung in seam.rungs:
            if all(there[probe.function] for probe in rung.probes):
                functions = [*rung.probes, *rung.one_of]
                wanted += [probe for probe in functions if there[probe.function] == 1]
                break
    return list(dict.fromkeys(wanted))


def bpftrace_program(by: str = "kprobe") -> str:
    """Entry and return of the same functions: calls and nanoseconds of each. by: or fentry."""
    entry, leave = {"kprobe": ("kprobe", "kretprobe"), "fentry": ("kfunc", "kretfunc")}[by]
    parts = ['BEGIN { printf("attached\\n"); }']
    for number, probe in enumerate(probes()):
        parts.append(f"{entry}:{probe.function} {{ @start{number}[tid] = nsecs; }}")
        if probe.returns:
            parts.append(
                f"{leave}:{probe.function} /@start{number}[tid]/ {{ "
                f"@ns{number} = sum(nsecs - @start{number}[tid]); @calls{number} = count(); "
                f"delete(@start{number}[tid]); }}"
            )
    return " ".join(parts)


def plain_bcc_script() -> str:
    """The same BPF program, compiled and attached as a BCC script does it."""
    programs, attach = [], []
    for probe in probes():
        number = number_of_call(probe.call)
        for end in ("return", "entry"):
            if end == "return" and not probe.returns:
                continue
            # A cookie, which tells the program what it is attached to, BCC cannot give.
            body = _BODIES[end] % number
            programs.append(f"int {end}_{number}(struct pt_regs *ctx) {{ {body} }}")
            how = "attach_kretprobe" if end == "return" else "attach_kprobe"
            attach.append(f"bpf.{how}(event={probe.function!r}, fn_name='{end}_{number}')")
    lines = [
        "import signal",
        "from bcc import BPF",
        "from balloontrace.tracers.load.compiler import flags, source",
        f"text = source() + {chr(10).join(programs)!r}",
        "given = [flag.replace('RING_PAGES=1', 'RING_PAGES=256') for flag in flags()]",
        f"given = [flag.replace('CPUS=1', 'CPUS={os.cpu_count()}') for flag in given]",
        "bpf = BPF(text=text, cflags=given)",
        *attach,
        "print('attached', flush=True)",
        "signal.pause()",
    ]
    return "\n".join(lines)


_BODIES = {
    "return": "return at_return(PT_REGS_RC(ctx), %d);",
    "entry": "struct arguments a = { PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), "
    "PT_REGS_PARM3(ctx), PT_REGS_PARM4(ctx) }; return at_entry(&a, %d);",
}
"""As kprobe_return and kprobe_entry of bpf/balloon.c."""

COMMANDS = {
    ONE_FILE: ["/usr/bin/python3", PYZ, "record", "-f", "-o", RECORDING],
    OURS: ["balloontrace", "record", "-f", "-o", RECORDING],
    COMPILED: ["balloontrace", "record", "--compiled", "-f", "-o", RECORDING],
    PLAIN_BCC: [sys.executable, "-c", plain_bcc_script()],
    BPFTRACE: ["bpftrace", "-e", bpftrace_program()],
}
MARKS = {
    ONE_FILE: b"tracing the balloon",
    COMPILED: b"tracing the balloon",
    OURS: b"tracing the balloon",
    PLAIN_BCC: b"attached",
    BPFTRACE: b"attached\n",
}


def measure(tool: str) -> dict[str, object]:
    """Start the tool, wait until it says it is attached, look at its memory, end it."""
    started = time.monotonic()
    process = subprocess.Popen(
        COMMANDS[tool], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if MARKS[tool] in line:
            break
    else:
        sys.exit(f"{tool} did not attach: {b''.join(said).decode()}")
    seconds = time.monotonic() - started
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    # bpftrace misses a SIGINT that comes just before it sleeps: nothing polite for the others.
    os.kill(process.pid, signal.SIGKILL if tool in (PLAIN_BCC, BPFTRACE) else signal.SIGINT)
    process.communicate()
    return {"tool": tool, "seconds": seconds, "rss_bytes": int(fields["VmRSS"].split()[0]) * 1024}


def main() -> None:
    """Alternate the tools; the first round only warms the page cache. Plain BCC compiles for
    minutes, which is seen as well once.

    argv: rounds, and the tools if not all; or --bpftrace kprobe (or fentry), to print its program.
    """
    if sys.argv[1] == "--bpftrace":
        print(bpftrace_program(sys.argv[2]))
        return
    for number in range(int(sys.argv[1]) + 1):
        for tool in sys.argv[2:] or COMMANDS:
            if tool == PLAIN_BCC and number != 1:
                continue
            result = measure(tool)
            if number:
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
