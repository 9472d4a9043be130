"""Runs inside a guest: seconds from exec to attached, of three ways to trace the same functions.

Prints one JSON object per line: {"tool": ..., "seconds": ..., "rss_bytes": ...}.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

from balloontrace.tracers.cache import DIRECTORY
from balloontrace.tracers.compiler import source
from balloontrace.tracers.seams import SEAMS, Probe

PLAIN_BCC = "plain BCC, kernel headers"
BPFTRACE = "bpftrace"
OURS = "balloontrace record"
FIRST = "balloontrace record, the first time"

RECORDING = "/root/bench.btrace"


def probes() -> list[Probe]:
    """The kprobes that balloontrace attaches here, less those that only it can.

    A name that stands for two functions (vp_get) is refused to the other two by the kernel.
    """
    with open("/proc/kallsyms", encoding="ascii") as kallsyms:
        there = Counter(line.split()[2] for line in kallsyms)
    wanted: list[Probe] = []
    for seam in SEAMS:
        for rung in seam.rungs:
            functions = [probe for probe in (*rung.probes, *rung.one_of) if not probe.tracepoint]
            if all(there[probe.place] for probe in rung.probes if not probe.tracepoint):
                wanted += [probe for probe in functions if there[probe.place] == 1]
                break
    return list(dict.fromkeys(wanted))


def bpftrace_program() -> str:
    """Entry and return of the same functions: calls and nanoseconds of each."""
    parts = ['BEGIN { printf("attached\\n"); }']
    for number, probe in enumerate(probes()):
        parts.append(f"kprobe:{probe.place} {{ @start{number}[tid] = nsecs; }}")
        if probe.exit:
            parts.append(
                f"kretprobe:{probe.place} /@start{number}[tid]/ {{ "
                f"@ns{number} = sum(nsecs - @start{number}[tid]); @calls{number} = count(); "
                f"delete(@start{number}[tid]); }}"
            )
    return " ".join(parts)


def plain_bcc_script() -> str:
    """The same BPF program, compiled and attached as a BCC script does it."""
    programs, attach = [], []
    for number, probe in enumerate(probes()):
        for program, is_return in probe.programs():
            name = f"{program}_{number}"
            programs.append(_written_out(program, name, probe.call))
            how = "attach_kretprobe" if is_return else "attach_kprobe"
            attach.append(f"bpf.{how}(event={probe.place!r}, fn_name={name!r})")
    lines = [
        "import signal",
        "from bcc import BPF",
        "from balloontrace.tracers.compiler import STAGES, definitions, source",
        f"text = source() + {chr(10).join(programs)!r}",
        "bpf = BPF(text=text, cflags=definitions(1 << 20))",
        "stages = bpf[b'stages']",
        "for number, stage in enumerate(STAGES):",
        "    program = bpf.load_func(stage.encode(), BPF.KPROBE).fd",
        "    stages[stages.Key(number)] = stages.Leaf(program)",
        *attach,
        "print('attached', flush=True)",
        "signal.pause()",
    ]
    return "\n".join(lines)


def _written_out(program: str, name: str, call: str) -> str:
    """One program of balloon.c for one call, as it would be written out by hand."""
    text = re.search(rf"^int {program}\(.*?^}}\n", source(), re.MULTILINE | re.DOTALL)
    assert text is not None, program
    written = text[0].replace(f"int {program}(", f"int {name}(", 1)
    return written.replace("ANY_CALL", f"CALL_{call.upper()}")


COMMANDS = {
    FIRST: ["balloontrace", "record", "-f", "-o", RECORDING],
    OURS: ["balloontrace", "record", "-f", "-o", RECORDING],
    PLAIN_BCC: [sys.executable, "-c", plain_bcc_script()],
    BPFTRACE: ["bpftrace", "-e", bpftrace_program()],
}
MARKS = {
    FIRST: b"tracing the balloon",
    OURS: b"tracing the balloon",
    PLAIN_BCC: b"attached",
    BPFTRACE: b"attached\n",
}


def measure(tool: str) -> dict[str, object]:
    """Start the tool, wait until it says it is attached, look at its memory, end it."""
    if tool == FIRST:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
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
    os.kill(process.pid, signal.SIGINT if tool in (OURS, FIRST) else signal.SIGKILL)
    process.communicate()
    return {"tool": tool, "seconds": seconds, "rss_bytes": int(fields["VmRSS"].split()[0]) * 1024}


def main() -> None:
    """Alternate the tools; the first round only warms the page cache.

    argv: rounds; or --bpftrace, to print its program.
    """
    if sys.argv[1] == "--bpftrace":
        print(bpftrace_program())
        return
    for number in range(int(sys.argv[1]) + 1):
        for tool in COMMANDS:
            result = measure(tool)
            if number:
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
