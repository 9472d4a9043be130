"""Runs inside a guest: seconds from exec to attached, of three ways to trace the same functions.

argv: rounds. Prints one JSON object per line: {"tool": ..., "seconds": ..., "rss_bytes": ...}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

from balloontrace.tracers.seams import SEAMS, Probe

PLAIN_BCC = "plain BCC, kernel headers"
BPFTRACE = "bpftrace"
OURS = "balloontrace record"

RECORDING = "/root/bench.btrace"


def probes() -> list[Probe]:
    """The probes that the first rung of each seam attaches here, less what only balloontrace can.

    A name that stands for two functions (vp_get) is refused to the other two by the kernel.
    """
    rungs = [seam.rungs[0] for seam in SEAMS]
    wanted = [probe for rung in rungs for probe in (*rung.probes, *rung.one_of)]
    with open("/proc/kallsyms", encoding="ascii") as kallsyms:
        there = Counter(line.split()[2] for line in kallsyms)
    return [probe for probe in wanted if there[probe.function] == 1]


def bpftrace_program() -> str:
    """Entry and return of the same functions: calls and nanoseconds of each."""
    parts = ['BEGIN { printf("attached\\n"); }']
    for number, probe in enumerate(probes()):
        parts.append(f"kprobe:{probe.function} {{ @start{number}[tid] = nsecs; }}")
        if probe.call:
            parts.append(
                f"kretprobe:{probe.function} /@start{number}[tid]/ {{ "
                f"@ns{number} = sum(nsecs - @start{number}[tid]); @calls{number} = count(); "
                f"delete(@start{number}[tid]); }}"
            )
    return " ".join(parts)


def plain_bcc_script() -> str:
    """The same BPF program, compiled and attached as a BCC script does it."""
    programs, attach = [], []
    for probe in probes():
        entry, leave = probe.entry or f"{probe.call}_entry", f"{probe.call}_return"
        if not probe.entry:
            programs.append(_program(entry, f"CALL_{probe.call.upper()}, ENTERED"))
        attach.append(f"bpf.attach_kprobe(event={probe.function!r}, fn_name={entry!r})")
        if probe.call:
            programs.append(_program(leave, f"CALL_{probe.call.upper()}, RETURNED"))
            attach.append(f"bpf.attach_kretprobe(event={probe.function!r}, fn_name={leave!r})")
    lines = [
        "import signal",
        "from bcc import BPF",
        "from balloontrace.tracers.loader import definitions, fill_stages, source, struct_offsets",
        "from balloontrace.tracers.seams import DRIVER_MODULE, MEMBERS, STRUCT",
        "offsets = struct_offsets(STRUCT, list(MEMBERS.values()), DRIVER_MODULE)",
        f"text = source() + {' '.join(programs)!r}",
        "bpf = BPF(text=text, cflags=definitions(1 << 20, offsets))",
        "fill_stages(bpf)",
        *attach,
        "print('attached', flush=True)",
        "signal.pause()",
    ]
    return "\n".join(lines)


def _program(name: str, arguments: str) -> str:
    """One program of balloon.c as it would be written out by hand."""
    return f"int {name}(struct pt_regs *ctx) {{ return go_on(ctx, {arguments}); }}"


COMMANDS = {
    OURS: ["balloontrace", "record", "-f", "-o", RECORDING],
    PLAIN_BCC: [sys.executable, "-c", plain_bcc_script()],
    BPFTRACE: ["bpftrace", "-e", bpftrace_program()],
}
MARKS = {OURS: b"tracing the balloon", PLAIN_BCC: b"attached", BPFTRACE: b"attached\n"}


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
    os.kill(process.pid, signal.SIGINT if tool == OURS else signal.SIGKILL)
    process.communicate()
    return {"tool": tool, "seconds": seconds, "rss_bytes": int(fields["VmRSS"].split()[0]) * 1024}


def main() -> None:
    """Alternate the tools; the first round only warms the page cache."""
    for number in range(int(sys.argv[1]) + 1):
        for tool in COMMANDS:
            result = measure(tool)
            if number:
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
