# SPDX-License-Identifier: Apache-2.0
"""What the running kernel has to attach to. It imports little: the loader begins with this."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.attach.seams import MODULES, OFFSETS, functions
from balloontrace.tracers.machine import balloon, symbols
from balloontrace.tracers.machine.btf import Btf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from balloontrace.tracers.machine.symbols import Symbol


class Kernel:
    """What the running kernel has to attach to: its functions, and its structures' layout. driver:
    whose they are (balloon.identity), 0: none is there.

    Both are read on a thread, for the loader has much to import meanwhile. The thread imports
    nothing: of a zip, zipimport is not fit for two threads.
    """

    def __init__(self) -> None:
        self.driver = balloon.identity()
        self._symbols: dict[str, list[Symbol]] = {}
        self._layout: dict[str, int] = {}
        self._unreadable = ""
        self._failed: BaseException | None = None
        self._read = threading.Thread(target=self._look)
        self._read.start()

    def _look(self) -> None:
        try:
            self._symbols = symbols.find_functions(functions(), MODULES, self._kallsyms())
            self._layout = _offsets()
        except BaseException as error:  # nothing was found then, which is not: it is not there
            self._failed = error

    def _kallsyms(self) -> bytes:
        try:
            return symbols.kallsyms()
        except OSError as error:
            self._unreadable = str(error.strerror)
            return b""

    def _looked(self) -> None:
        """Wait for the thread. Raises what it failed of."""
        self._read.join()
        if self._failed:
            raise self._failed

    def symbols(self) -> Mapping[str, Sequence[Symbol]]:
        """Function -> where the kernel has it; functions it does not have are left out.

        Raises UserError if the kernel does not tell.
        """
        self._looked()
        if self._unreadable:
            raise UserError(
                f"/proc/kallsyms cannot be read: {self._unreadable}",
                "a kernel built with CONFIG_KALLSYMS",
                EXIT_UNSUPPORTED,
            )
        return self._symbols

    def layout(self) -> Mapping[str, int]:
        """Keys of seams.OFFSETS -> bytes; what BTF does not tell is left out."""
        self._looked()
        return self._layout


def _offsets() -> dict[str, int]:
    try:
        btf = Btf(balloon.DRIVER_MODULE)
    except (OSError, ValueError):
        return {}
    found = {key: btf.offset(*where) for key, where in OFFSETS.items()}
    return {key: value for key, value in found.items() if value is not None}
