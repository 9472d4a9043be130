# SPDX-License-Identifier: Apache-2.0
"""Loads and attaches, in a child process that hands its descriptors over and is gone.

It costs more memory than recording, and over 100 MiB with BCC and LLVM where somebody changed the
programs and they must be compiled. The child pays that once; what tracing needs afterwards is a
handful of file descriptors (maps, and the perf events that hold the attached programs), which go to
the recorder over a Unix socket. The recorder stays as small as Python is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.attach import attaching, handover
from balloontrace.tracers.attach.control import Control
from balloontrace.tracers.attach.forced import Forced
from balloontrace.tracers.attach.kernel import Kernel
from balloontrace.tracers.load import bytecode, cache, compiler, description, shipped
from balloontrace.tracers.load.bytecode import Compiled
from balloontrace.tracers.machine import balloon, bpf_calls, guest
from balloontrace.tracers.machine.system_calls import lift_locked_memory_limit
from balloontrace.tracers.record.ring import ITEM_BYTES, whole_pages


def load(
    running: Kernel | None,
    ring_bytes: int,
    tried: dict[str, Any],
    keep: bool,
    silent: bool,
) -> handover.Handover:
    """Everything that the recorder's child does: look, load, attach if the driver is there. tried:
    Forced's fields; for the others see ahead.start. Raises UserError."""
    forced = Forced(**tried)
    code, origin = _code(keep, forced.compiled)
    lift_locked_memory_limit()
    ring_bytes = whole_pages(ring_bytes)
    maps = _maps(code, ring_bytes)
    content = {
        **description.of_recording(os.getppid()),
        "ring_bytes": ring_bytes,
        "possible_cpus": guest.possible_cpus(),
        "code": origin,
    }
    attached = _attach(code, maps, running, _settings(ring_bytes, silent), forced)
    if loader := attached.described.pop("loader", 0):
        content["tasks"]["loader"] = loader
    kept = os.memfd_create("bytecode")
    os.write(kept, code.to_json())
    return handover.Handover({**content, **attached.described}, maps, [kept], *attached.held)


def attach_again(
    code: int, maps: Mapping[str, int], content: Mapping[str, Any], options: Mapping[str, Any]
) -> handover.Handover:
    """In a child of the recorder: load and attach again what the first loader handed over.

    code, maps, content: of that handover; options: see Forced, and `silent`. Raises UserError.
    """
    compiled = bytecode.from_json(os.pread(code, os.fstat(code).st_size, 0))
    forced = Forced(options["rungs"], options["means"])
    settings = _settings(content["ring_bytes"], options["silent"])
    attached = _attach(compiled, maps, Kernel(), settings, forced)
    return handover.Handover(attached.described, {}, [], *attached.held)


def _attach(
    code: Compiled,
    maps: Mapping[str, int],
    running: Kernel | None,
    settings: Mapping[str, int],
    forced: Forced,
) -> attaching.Attachment:
    """Attach, if the driver is there, and prove that it works; `described` has this process's id as
    `loader`, too. Attaching takes up to seconds, in which the driver can go and come back: probes
    on one that is gone are none."""
    linked = code.linked(maps[definition.name] for definition in code.maps)
    while running and running.driver:
        attached: attaching.Attachment | None = None
        try:
            attached = attaching.attach(linked, maps["layout"], running, settings, forced)
            attached.described["loader"] = os.getpid()
            if attached.described["seams"]["proof"]["rung"]:
                attached.described["loader"] = Control(maps["control"]).prove()
        except UserError:
            if balloon.identity() == running.driver:
                raise
        else:
            if balloon.identity() == running.driver:
                return attached
        if attached:
            attached.held.close()
        running = Kernel()
    return attaching.nothing()


def _settings(ring_bytes: int, silent: bool) -> dict[str, int]:
    """What the recorder decides of the layout."""
    return {"wake_events": ring_bytes // ITEM_BYTES // 2, "silent": silent}


def _code(keep: bool, anew: bool) -> tuple[Compiled, str]:
    """The programs' bytecode, and where it is from: `shipped`, `cache`, or `compiled` here, as it
    is if `anew`. Raises UserError."""
    source = compiler.digest()
    if not anew and (code := shipped.find(source)):
        return code, "shipped"
    if source is None:
        raise UserError(
            "there is no source of the BPF programs here to compile",
            "record without --compiled, or with the whole package",
            EXIT_UNSUPPORTED,
        )
    name = cache.key(source)
    if not anew and (code := cache.find(name)):
        return code, "cache"
    code = compiler.compile_programs()
    if keep:
        cache.keep(name, code)
    return code, "compiled"


def _maps(code: Compiled, ring_bytes: int) -> dict[str, int]:
    """Make the maps of `code`; by name. Raises UserError."""
    cpus = guest.possible_cpus()
    sizes = {"events": ring_bytes, "counters": cpus, "sums": cpus}
    made: dict[str, int] = {}
    for definition in code.maps:
        entries = sizes.get(definition.name, definition.entries)
        try:
            made[definition.name] = bpf_calls.create_map(definition._replace(entries=entries))
        except OSError as error:
            raise UserError(
                f"kernel {os.uname().release} makes no BPF map {definition.name}: {error.strerror}",
                _REMEDIES.get(error.errno or 0, "is BPF restricted here (lockdown, LSM)?"),
                EXIT_UNSUPPORTED,
            ) from None
    return made


_NO_ROOM = "raise the limit of locked memory (ulimit -l), or record with a smaller --ring-kib"
_REMEDIES = {
    errno.ENOMEM: "the guest has too little memory left; record with a smaller --ring-kib",
    errno.EPERM: _NO_ROOM,
    errno.EINVAL: "it needs CONFIG_BPF_SYSCALL, and 5.8 or a backport for the ring buffer",
}
"""Why a map is refused -> what to do."""
