# SPDX-License-Identifier: Apache-2.0
"""Something done over and over while something else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from balloontrace.errors import UserError


class Repeat:
    """Calls `action` every `every_s` seconds in a thread of its own; a context manager.

    Its end waits for the call under way. Raises there the UserError that ended it early.
    """

    def __init__(self, action: Callable[[], None], every_s: float = 0.0) -> None:
        self._action = action
        self._every_s = every_s
        self._stop = threading.Event()
        self._error: UserError | None = None
        self._thread = threading.Thread(target=self._run, name="repeat", daemon=True)

    def __enter__(self) -> Repeat:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every_s):
                self._action()
        except UserError as error:
            self._error = error
