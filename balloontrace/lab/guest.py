# SPDX-License-Identifier: Apache-2.0
"""A disposable guest in plain QEMU."""

from __future__ import annotations

import time
from pathlib import Path

from balloontrace.host.qmp import Monitor
from balloontrace.lab import boots
from balloontrace.lab.console import Console
from balloontrace.lab.host import require_tools
from balloontrace.lab.image import Image, Progress, ensure_image, ensure_userspace
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.qemu import GuestConfig, Qemu, accel_of, make_overlay, start_qemu
from balloontrace.lab.remote import Address, GuestDied, GuestHung, RemoteGuest
from balloontrace.lab.userspaces import find_userspace

BOOT_TIMEOUT_S = 240.0

BOOTS = 3
"""So often a guest is booted that its emulator kills before anything of ours runs in it."""

_TOOLS = ("qemu-img", "qemu-system-x86_64", "setpriv")


def image_of(config: GuestConfig, progress: Progress) -> Image:
    """Return the image of such a guest, building it first if need be.

    Raises UserError if there is no such kernel or userspace, its driver cannot be exchanged, or it
    cannot be built.
    """
    image = ensure_image(find_kernel(config.kernel, config.driver), progress)
    if not config.userspace:
        return image
    return Image(image.directory, ensure_userspace(find_userspace(config.userspace), progress))


class Guest(RemoteGuest):
    """A disposable guest: whatever it writes is lost at the end.

    progress is told when the emulator killed the guest while it booted, and it is booted again.
    console_log keeps its console.
    """

    def __init__(
        self,
        image: Image,
        config: GuestConfig,
        progress: Progress,
        console_log: Path | None = None,
    ) -> None:
        super().__init__(config)
        self.image = image
        self._progress = progress
        self._console_log = console_log
        self._qemu: Qemu | None = None
        self._monitor: Monitor | None = None

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor."""
        if self._monitor is None:
            raise RuntimeError("the guest is not running")
        return self._monitor

    def resident_bytes(self) -> int:
        """Return how much of the host's memory the guest takes, QEMU included."""
        return self._qemu.resident_bytes() if self._qemu else 0

    def host_pid(self) -> int:
        """Return QEMU's process on the host, 0 if the guest is not running."""
        return self._qemu.pid if self._qemu else 0

    def _come_up(self) -> None:
        """See RemoteGuest. What the emulator killed before we were in it is booted again."""
        for boots_left in reversed(range(BOOTS)):
            started = time.monotonic()
            try:
                super()._come_up()
            except (GuestDied, GuestHung):
                oops = self._emulator_oops()
                self._note_boot(started, oops)
                if not (oops and boots_left):
                    raise
                self._progress(f"the emulator killed the guest ({oops}), booting it again")
                self._stop()
            else:
                self._note_boot(started)
                return

    def _emulator_oops(self) -> str:
        """How the emulator is known to have killed the guest that did not come up, or empty."""
        # A kernel that hangs warns of it after half a minute: where none did, no CPU ran.
        silent = self._console.silent and f"not a word in {BOOT_TIMEOUT_S:.0f} s"
        return self._console.emulator_oops or silent or ""

    def _note_boot(self, started: float, oops: str = "") -> None:
        seconds = round(time.monotonic() - started, 3)
        boots.note(boots.Boot(self.config.kernel, accel_of(self.config), seconds, oops))

    def _start(self) -> Address:
        require_tools(_TOOLS)
        make_overlay(self.image, self._overlay, self.config.disk_bytes)
        return self._boot()

    def power_cycle(self) -> None:
        """Cut the power, and boot again from the same disk. What ran in the guest is gone.

        Raises UserError if it does not come up again.
        """
        self._close_ssh()
        self._stop()
        self._address = self._boot()
        self._open_ssh()

    @property
    def _overlay(self) -> Path:
        return self.directory / "root.qcow2"

    def _boot(self) -> Address:
        self._console = Console(self._console_log or self.directory / "console.log")
        self._qemu, connection = start_qemu(self.config, self.image, self._overlay, self._console)
        ready = self._console.wait_ready(BOOT_TIMEOUT_S)
        if not ready:
            connection.close()
            raise self.lost() or self.hung(f"not ready after {BOOT_TIMEOUT_S:.0f} s")
        self._monitor = Monitor(connection)
        return Address("127.0.0.1", self._monitor.forwarded(), self.image.ssh_key)

    def _stop(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        if self._qemu is not None:
            self._qemu.stop()

    def _trouble(self) -> str:
        return self._console.trouble

    def last_lines(self) -> list[str]:
        """See RemoteGuest."""
        return self._console.tail()
