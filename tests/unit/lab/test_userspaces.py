# SPDX-License-Identifier: Apache-2.0
"""The userspaces of the lab; none is built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.lab.debian import guest_tree
from balloontrace.lab.diagnosis import step_error
from balloontrace.lab.userspaces import Userspace, find_userspace, load_userspaces


@pytest.mark.parametrize("userspace", load_userspaces().values(), ids=lambda table: table.name)
def test_no_userspace_has_what_the_one_file_is_for(userspace: Userspace) -> None:
    command = guest_tree(userspace, userspace.packages, Path("/key"), Path("/tree"))
    (packages,) = [word for word in command if word.startswith("--include=")]
    assert "openssh-server" in packages
    assert not [name for name in ("bpf", "typer", "pyroute2", "llvm") if name in packages]


def test_an_unknown_userspace_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"it has .*debian-11") as caught:
        find_userspace("alpine")
    assert caught.value.exit_code == EXIT_USAGE


def test_the_line_to_correct_is_in_the_userspaces_file(tmp_path: Path) -> None:
    log = tmp_path / "failed-bare-rootfs.log"
    log.write_text("E: Unable to locate package python3-minimal\n")
    hint = step_error(log, find_userspace("bare")).hint
    assert "userspaces.toml line " in hint
    number = int(hint.rpartition(" ")[2])
    assert "python3-minimal" in Userspace.FILE.read_text().splitlines()[number - 1]
