# SPDX-License-Identifier: Apache-2.0
"""What would be recorded here and how, and what is missing. Collects; printing is the CLI's.

The seams are not predicted but tried: everything a recording attaches is compiled, loaded, attached
and detached at once.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from balloontrace import driver_behaviour
from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.attach import handover
from balloontrace.tracers.attach.forced import Forced
from balloontrace.tracers.attach.seams import MODULES
from balloontrace.tracers.doctor import requirements
from balloontrace.tracers.load import ahead, compiler, packages
from balloontrace.tracers.load.launch import RING_BYTES
from balloontrace.tracers.load.untraceable import or_counters
from balloontrace.tracers.machine import balloon, guest
from balloontrace.tracers.machine.balloon import DRIVER_MODULE, identity
from balloontrace.tracers.machine.symbols import find_functions, kallsyms
from balloontrace.tracers.samplers.vmstat import Meminfo, Vmstat

_BALLOON_COUNTERS = ("balloon_", "nr_balloon")

ACCOUNTING = {
    "used": "MemTotal stays as it is, and the balloon counts as used",
    "total": "MemTotal shrinks with the balloon, which counts as nothing",
}
"""What the balloon's pages are to /proc/meminfo, and so to `free`, for people."""


class Trial(NamedTuple):
    """One attaching and detaching.

    seams, means: as in the header of a recording, empty if there was no trial or no driver; took_s:
    from the fork of the loader to everything attached; code: where the programs are from (see
    loader); error: why recording cannot be.
    """

    seams: Mapping[str, Any] = {}
    means: Mapping[str, Any] = {}
    took_s: float | None = None
    code: str = ""
    error: UserError | None = None


class Diagnosis(NamedTuple):
    """Everything doctor says; docs/doctor.md has the fields.

    why: the first reason for which `record` will not work and what to do, '' if it will.
    """

    works: bool
    why: str
    kernel: dict[str, Any]
    balloon: dict[str, Any]
    checks: list[requirements.Check]
    seams: Mapping[str, Any]
    means: Mapping[str, Any]
    tools: dict[str, dict[str, Any]]


def diagnose() -> Diagnosis:
    """Look at everything and try what can be tried. Takes as long as `record` takes to begin."""
    needed = requirements.required()
    failed = [check for check in needed if not check.ok]
    reasons = [UserError(check.found, check.remedy, EXIT_UNSUPPORTED) for check in failed]
    # A driver that is not there does not keep us from compiling and loading: record --wait would.
    trial = Trial() if any(check.name != "driver" for check in failed) else _try()
    if trial.error:
        reasons.append(trial.error)
    return Diagnosis(
        works=not reasons,
        why=str(or_counters(reasons[0])) if reasons else "",
        kernel=_kernel(),
        balloon=_balloon(),
        checks=[*needed, *requirements.helpful()],
        seams=trial.seams,
        means=trial.means,
        tools=_tools(trial),
    )


def _try() -> Trial:
    """Attach everything as `record` would, and detach it."""
    started = time.monotonic()
    child, channel = ahead.start(RING_BYTES, Forced(), keep=False)
    try:
        given = handover.receive(channel)
        took_s = time.monotonic() - started
    except UserError as error:
        return Trial(error=error)
    finally:
        channel.close()
        os.waitpid(child, 0)
    handover.detach(given.probes)
    for descriptor in (*given.maps.values(), *given.code, *given.programs):
        os.close(descriptor)
    content = given.content
    return Trial(content["seams"], content["means"], took_s, content["code"])


def _kernel() -> dict[str, Any]:
    facts = guest.describe(os.getpid())["guest"]
    return {
        "release": facts["kernel"],
        "machine": facts["machine"],
        "page_size": facts["page_size"],
        "cpus": facts["cpus"],
        "memory_bytes": facts["memory_bytes"],
        "config": requirements.configuration(),
    }


def _balloon() -> dict[str, Any]:
    """Device, driver, and what both do to the guest's memory; what cannot be known is None."""
    device = balloon.device()
    described = balloon.describe()
    bound = bool(device) and (Path(device) / "driver").exists()
    mode, because, accounting = None, None, None
    lacking: dict[str, str] = {}
    if bound:
        offered = driver_behaviour.NOT_NEGOTIATED.items()
        lacking = {name: why for name, why in offered if name not in described["features"]}
        mode, because = driver_behaviour.promised(described["features"], _functions())
        accounting = "used" if "deflate_on_oom" in described["features"] else "total"
    return {
        "device": described["device"],
        **_transport(device),
        "features": described["features"] if bound else None,
        "not_negotiated": lacking,
        "driver": _driver(described["driver"], bound),
        "behaviour": mode,
        "behaviour_because": because,
        "accounting": accounting,
        **_size(),
    }


def _transport(device: str) -> dict[str, str | None]:
    """How the device is reached, and its address there."""
    if not device:
        return {"transport": None, "address": None}
    return {
        "transport": balloon.transport(device) or "unknown",
        "address": Path(device).resolve().parent.name,
    }


def _driver(module: dict[str, str | None], bound: bool) -> dict[str, Any]:
    """module: what balloon.describe says of it."""
    loaded = bool(identity())
    return {
        "name": DRIVER_MODULE,
        "loaded": loaded,
        "built_in": loaded and not balloon.is_module(),
        "bound": bound,
        **module,
        "out_of_tree": "O" in (module["taint"] or ""),  # Documentation/admin-guide/tainted-kernels
    }


def _functions() -> list[str]:
    """Those of the driver's functions from which its behaviour shows."""
    try:
        return list(
            find_functions(
                (driver_behaviour.OOM_NOTIFIER, driver_behaviour.SHRINKER), MODULES, kallsyms()
            )
        )
    except OSError:
        return []


def _size() -> dict[str, Any]:
    """The balloon's size from the kernel's own count, and MemTotal, in bytes.

    The counters are in the kernel's pages, not in the 4 KiB of the balloon's (mm/vmstat.c).
    """
    counters = {
        name: value for name, value in Vmstat().read().items() if name.startswith(_BALLOON_COUNTERS)
    }
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    known = {"balloon_inflate", "balloon_deflate"} <= counters.keys()
    pages = counters["balloon_inflate"] - counters["balloon_deflate"] if known else None
    return {
        "size_bytes": None if pages is None else pages * page_bytes,
        "mem_total_bytes": Meminfo().read()["MemTotal"],
        "counters": counters,
    }


def _tools(trial: Trial) -> dict[str, dict[str, Any]]:
    """Interpreter and packages: version (None: not there), found, and what to do about it."""
    tools: dict[str, dict[str, Any]] = {
        "python": {
            "version": platform.python_version(),
            "ok": True,
            "found": sys.executable,
            "remedy": "",
        }
    }
    for_guests = not compiler.has_source()
    for module in packages.PACKAGES:
        if for_guests and module in _NOT_FOR_GUESTS:
            continue
        try:
            version: str | None = packages.find(module)
            found, remedy = "", ""
        except UserError as error:
            version, found, remedy = None, error.message, error.hint
        tools[module] = {
            "version": version,
            "ok": version is not None,
            "found": found,
            "remedy": remedy,
        }
    if for_guests:
        tools["bcc"] = {"version": None, "ok": True, "found": "", "remedy": ""}
    tools["bcc"].update(_programs_seen(trial, tools["bcc"]["ok"]))
    return tools


_NOT_FOR_GUESTS = ("bcc", "typer")
"""What the one file for guests, and the package with its content, do without."""


_ORIGINS = {
    "shipped": "not needed: the programs are shipped compiled,",
    "cache": "had compiled before,",
    "compiled": "compiled and",
}


def _programs_seen(trial: Trial, there: bool) -> dict[str, Any]:
    """What became of the programs here, which says more than BCC's version. there: BCC is."""
    if trial.code == "shipped" or there:
        if trial.error:
            return {"ok": False, "found": trial.error.message, "remedy": trial.error.hint}
        if trial.took_s is None:
            return {"found": "not tried"}
        done = "attached" if trial.seams else "loaded"
        found = f"{_ORIGINS[trial.code]} {done} in {trial.took_s:.1f} s"
        return {"ok": True, "found": found, "remedy": ""}
    return {}
