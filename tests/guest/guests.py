# SPDX-License-Identifier: Apache-2.0
"""The guests that tests share: booted when first wanted, replaced when one may have been harmed."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from balloontrace.lab.guest import Guest, image_of
from balloontrace.lab.qemu import GuestConfig

Made = TypeVar("Made")


class Guests:
    """One running guest for each GuestConfig of a kernel, and what tests have prepared in it.

    A guest in which a test failed, or which died, is not given to another: that costs one test. One
    that no test has is stopped, as by QMP's `stop`: emulated CPUs cost the host's also at rest.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._booted = 0
        self._ends: dict[Guest, ExitStack] = {}
        self._shared: dict[GuestConfig, Guest] = {}
        self._prepared: dict[Hashable, Any] = {}
        self._lent: list[Guest] = []
        self._spoiled: list[Guest] = []
        self._paused: set[Guest] = set()

    def begin_test(self) -> None:
        """Forget what the test before was lent, and end what it spoiled."""
        for guest in self._spoiled:
            self._end(guest)
        self._lent, self._spoiled = [], []

    def spoil(self) -> list[tuple[str, str]]:
        """The test failed: what it was lent goes. Returns (what guest, its last words) of each."""
        self._spoiled = list(self._lent)
        return [(guest.config.kernel, "\n".join(guest.last_lines())) for guest in self._lent]

    def died(self) -> list[str]:
        """What became of each of the test's guests that died."""
        lost = [(guest.config.kernel, guest.lost()) for guest in self._lent if guest in self._ends]
        return [f"{kernel}: {error.message}" for kernel, error in lost if error]

    def died_unnoticed(self) -> list[str]:
        """The same, of a test that did not fail."""
        return [] if self._spoiled else self.died()

    def get(self, config: GuestConfig) -> Guest:
        """Return the guest of that making, and end those of other kernels. Raises UserError."""
        for other, guest in list(self._shared.items()):
            if other.kernel != config.kernel:
                self._end(guest)
        if config not in self._shared:
            self._shared[config] = self._boot(config)
        guest = self._shared[config]
        if guest in self._paused:
            self._resume(guest)
        if guest not in self._lent:
            self._lent.append(guest)
        return guest

    def pause(self) -> None:
        """The test is over: what it was lent rests until another wants it."""
        for guest in {*self._shared.values()} & {*self._lent} - {*self._spoiled}:
            guest.monitor.execute("stop")
            self._paused.add(guest)

    def _resume(self, guest: Guest) -> None:
        self._paused.remove(guest)
        guest.monitor.execute("cont")
        guest.run(["date", "-s", f"@{time.time()}"])  # its clock stood still

    @contextmanager
    def own(self, config: GuestConfig) -> Iterator[Guest]:
        """A guest for one test alone. Raises UserError if it cannot be had."""
        guest = self._boot(config)
        self._lent.append(guest)
        yield guest
        if lost := guest.lost():
            raise lost
        self._end(guest)

    def prepared(self, what: Hashable, prepare: Callable[[], Made]) -> Made:
        """Return what `prepare` made; it is called once, if it succeeds.

        A session's fixture would fail for every test once it has failed for one. What is made in a
        guest has that in its name.
        """
        if what not in self._prepared:
            self._prepared[what] = prepare()
        made: Made = self._prepared[what]
        return made

    def end(self) -> None:
        """End all guests."""
        for guest in list(self._ends):
            self._end(guest)

    def _boot(self, config: GuestConfig) -> Guest:
        self._booted += 1
        console = self._directory / f"console-{self._booted}.log"
        image = image_of(config, print)
        with ExitStack() as stack:
            guest = stack.enter_context(Guest(image, config, print, console))
            guest.install_balloontrace()
            self._ends[guest] = stack.pop_all()
        return guest

    def _end(self, guest: Guest) -> None:
        if guest in self._ends:
            self._ends.pop(guest).close()
        self._shared = {config: other for config, other in self._shared.items() if other != guest}
