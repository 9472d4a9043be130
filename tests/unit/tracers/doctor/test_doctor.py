# SPDX-License-Identifier: Apache-2.0
"""`balloontrace doctor` without a balloon, its text and JSON, and the packages it names."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from balloontrace.cli.doctor_text import WIDTH, as_json, as_text
from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.doctor import requirements
from balloontrace.tracers.doctor.diagnose import Diagnosis
from balloontrace.tracers.doctor.requirements import Check
from balloontrace.tracers.load import packages

WITHOUT_A_BALLOON = """
import sys
from balloontrace.tracers.machine import balloon
balloon._VIRTIO_DEVICES = "/nonexistent"
sys.argv = ["balloontrace", "doctor", *sys.argv[1:]]
from balloontrace.cli.app import main
main()
"""


def _doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_A_BALLOON, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_machine_without_a_balloon_is_told_what_to_do() -> None:
    done = _doctor()
    assert done.returncode == EXIT_UNSUPPORTED
    assert done.stderr == ""
    assert "this machine has no virtio balloon device" in done.stdout
    assert "none: this is no guest with a virtio balloon" in done.stdout
    last = done.stdout.splitlines()[-1]
    if os.geteuid() == 0:
        assert last == (
            "record will not work: this machine has no virtio balloon device; "
            "run inside a guest that has one (QEMU: -device virtio-balloon-pci), or record --wait "
            "until it is plugged in"
        )
    else:
        assert last.startswith("record will not work: tracing the kernel needs root, or ")


def test_a_machine_without_a_balloon_as_json() -> None:
    done = _doctor("--json")
    assert done.returncode == EXIT_UNSUPPORTED
    said = json.loads(done.stdout)
    assert (said["schema"], said["works"], said["seams"]) == (1, False, {})
    assert said["balloon"]["device"] is None
    checks = {check["name"]: check for check in said["checks"]}
    assert checks["device"]["ok"] is False
    assert checks["device"]["required"] is True
    assert "inside a guest" in checks["device"]["remedy"]
    assert said["tools"]["typer"]["version"]


def test_doctor_imports_nothing_a_guest_does_not_have() -> None:
    code = WITHOUT_A_BALLOON.replace("main()", "\ntry: main()\nexcept SystemExit: pass")
    code += "\nprint('loaded', *{'pandas', 'numpy', 'rich.table', 'bcc'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"


def _diagnosis(**changes: Any) -> Diagnosis:
    """A guest where everything is well, but for `changes`."""
    seam = {"rung": "leak_balloon", "number": 1, "loses": "", "not": []}
    well = Diagnosis(
        works=True,
        why="",
        kernel={
            "release": "6.1.0",
            "machine": "x86_64",
            "page_size": 4096,
            "cpus": 2,
            "memory_bytes": 1 << 30,
            "config": {},
        },
        balloon={
            "device": "virtio1",
            "transport": "pci",
            "address": "0000:00:02.0",
            "features": ["stats_vq", "deflate_on_oom"],
            "not_negotiated": {"reporting": "the host does not offer it"},
            "driver": {
                "name": "virtio_balloon",
                "loaded": True,
                "built_in": False,
                "bound": True,
                "version": None,
                "srcversion": None,
                "taint": None,
                "out_of_tree": False,
            },
            "behaviour": "oom-notifier",
            "behaviour_because": "deflate_on_oom negotiated, the driver has an OOM notifier",
            "accounting": "used",
            "size_bytes": 300 << 20,
            "mem_total_bytes": 1 << 30,
            "counters": {"balloon_inflate": 76800, "balloon_deflate": 0},
        },
        checks=[Check("root", True, "running as root", required=True)],
        seams={"leak": seam},
        means={"used": "kprobe", "not": ["kprobe.multi: Operation not supported"]},
        tools={"bcc": {"version": "0.26.0", "ok": True, "found": "compiled", "remedy": ""}},
    )
    return well._replace(**changes)


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def test_lines_are_short_but_for_the_verdict() -> None:
    reason = "a long reason with many words; and a long remedy " * 5
    seams = {"fill": {"rung": "worker", "number": 2, "loses": reason, "not": [reason] * 2}}
    checks = [Check("PSI", False, reason, reason)]
    lines = as_text(_diagnosis(works=False, why=reason, seams=seams, checks=checks)).splitlines()
    assert max(map(len, lines[:-1])) <= WIDTH < 80
    assert lines[-1] == f"record will not work: {reason}"


def test_a_seam_says_its_rung_its_loss_and_why_it_is_no_better() -> None:
    seams = {
        "fill": {
            "rung": "size worker",
            "number": 2,
            "loses": "this",
            "not": ["fill_balloon: this kernel has no such function"],
        },
        "hint": {"rung": None, "number": 0, "loses": "", "not": ["one", "two"]},
    }
    text = _squeezed(as_text(_diagnosis(seams=seams)))
    assert "fill size worker loses: this not fill_balloon: this kernel has no such function" in text
    assert "hint not attached: one two" in text


@pytest.mark.parametrize(
    ("required", "mark"),
    [(True, "no: none (CONFIG_PSI is not set in /boot/config)"), (False, "less: none (CONFIG_")],
)
def test_a_failed_check_says_what_it_costs_and_what_to_do(required: bool, mark: str) -> None:
    check = Check("PSI", False, "none", "boot with psi=1", "CONFIG_PSI", required)
    kernel = _diagnosis().kernel | {"config": {"source": "/boot/config", "CONFIG_PSI": None}}
    text = _squeezed(as_text(_diagnosis(checks=[check], kernel=kernel)))
    assert f"PSI {mark}" in text
    assert "to do: boot with psi=1" in text


@pytest.mark.parametrize(
    ("accounting", "free"),
    [
        ("used", "300.0 MiB; free shows 1,024.0 MiB in total, the balloon as used"),
        ("total", "300.0 MiB; free shows 1,024.0 MiB in total, 1,324.0 MiB if the balloon were"),
    ],
)
def test_what_free_makes_of_the_balloon(accounting: str, free: str) -> None:
    balloon = _diagnosis().balloon | {"accounting": accounting}
    assert free in _squeezed(as_text(_diagnosis(balloon=balloon)))


def test_a_module_cannot_write_to_the_terminal() -> None:
    driver = _diagnosis().balloon["driver"] | {"version": "\x1b[31mred\u202e", "taint": "OE"}
    found = _diagnosis(balloon=_diagnosis().balloon | {"driver": driver})
    for said in (as_text(found), as_json(found)):
        assert "red" in said
        assert "\x1b" not in said
        assert "\u202e" not in said


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ({"ID": "debian"}, "apt install python3-bpfcc"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "apt install python3-bpfcc"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "apt install python3-bpfcc"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install python3-bcc"),
        ({"ID": "alpine"}, "apk add py3-bcc"),
    ],
)
def test_the_package_of_this_distribution_only(
    release: Mapping[str, str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert packages.how_to_install("bcc", release) == command


def test_a_quotation_mark_alone_in_os_release(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "ID=debian\nPRETTY_NAME=Joe's appliance\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert packages.how_to_install("bcc").startswith("apt install python3-bpfcc")


@pytest.mark.parametrize("torn", [b"CONFIG_PSI=y\nCONFIG_SND_HDA", b""])
def test_a_configuration_that_was_cut_off(torn: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> bytes:
        return gzip.compress(b"CONFIG_PSI=n\n" * 99)[:-20] if path.suffix == ".gz" else torn

    monkeypatch.setattr(Path, "read_bytes", read)
    found = requirements.configuration()
    assert found["source"] == f"/boot/config-{os.uname().release}"
    assert found["CONFIG_PSI"] == ("y" if torn else None)


@pytest.mark.parametrize("module", packages.PACKAGES)
def test_every_package_where_the_distribution_is_unknown(module: str) -> None:
    said = packages.how_to_install(module, {"ID": "plan9"})
    for name, (people, _) in packages.DISTRIBUTIONS.items():
        assert packages.PACKAGES[module][name] in said
        assert people in said


def test_the_page_has_the_packages() -> None:
    page = (Path(__file__).parents[4] / "docs" / "doctor.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if " | py3-" in line]
    assert [row[1:] for row in rows] == [
        list(names.values()) for names in packages.PACKAGES.values()
    ]


def test_a_virtual_environment_must_see_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    settings = tmp_path / "pyvenv.cfg"
    settings.write_text("include-system-site-packages = false\n")
    assert "--system-site-packages" in packages.how_to_install("bcc", {"ID": "debian"})
    settings.write_text("include-system-site-packages = true\n")
    assert packages.how_to_install("bcc", {"ID": "debian"}) == "apt install python3-bpfcc"


def test_a_missing_bcc_and_a_wrong_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(UserError, match="not installed") as missing:
        packages.find("bcc")
    assert missing.value.exit_code == EXIT_UNSUPPORTED
    monkeypatch.delitem(sys.modules, "bcc")
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="unrelated") as wrong:
        packages.find("bcc")
    assert wrong.value.hint.startswith("pip uninstall bcc; ")


@pytest.mark.parametrize("version", ["#1 SMP PREEMPT_DYNAMIC Debian", "#1 SMP PREEMPT_RT Debian"])
def test_a_lock_that_may_sleep_is_told_of(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.uname()
    there = (*here[:3], version, here[4])
    monkeypatch.setattr("os.uname", lambda: os.uname_result(there))
    found = {check.name: check for check in requirements.helpful()}
    assert ("real time" in found) is ("PREEMPT_RT" in version)
