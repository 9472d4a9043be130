# SPDX-License-Identifier: Apache-2.0
"""A worker process: takes a batch as a line of JSON on stdin, says on stdout which recording it
reads, and in the end what became of the batch. Its memory is limited before it reads anything.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from typing import Any

_PR_SET_PDEATHSIG = 1
"""prctl(2): have a signal when the thread is gone that began this process."""


def main() -> None:
    """Work until stdin ends, or a limit was met. argv: bytes of memory."""
    most = int(sys.argv[1])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def say(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    from balloontrace.fleet import one, work  # noqa: F401 - once, not in the first recording's time

    say(ready=os.getpid())
    for line in sys.stdin:
        try:
            summary = work.do(json.loads(line), lambda number: say(reading=number))
        except OSError as error:
            say(failed=f"cannot write the dataset: {error.strerror or error}")
            return
        say(done=asdict(summary))
        if summary.spent:
            return


if __name__ == "__main__":
    main()
