# SPDX-License-Identifier: Apache-2.0
"""The one place where a UserError becomes a line and a status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Optional

from balloontrace.cli import output
from balloontrace.errors import EXIT_FAILURE, UserError


def exit_status(work: Callable[[], Optional[int]]) -> int:
    """What the process is to end with after `work`, which may return a status.

    A user's error is one line on stderr; a closed pipe is the end.
    """
    try:
        return work() or 0
    except UserError as error:
        output.status(f"balloontrace: {error}")
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
