"""The image cache and its recipe; no image is built here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.lab import build, host
from balloontrace.lab.image import cache_directory, find_image, recipe_key
from balloontrace.lab.kernels import find_kernel, load_kernels


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "balloontrace"
    assert find_image(find_kernel("6.1")) is None


def test_the_key_follows_the_kernel_entry() -> None:
    kernel = find_kernel("6.1")
    assert recipe_key(kernel) == recipe_key(find_kernel("6.1"))
    assert recipe_key(kernel) != recipe_key(replace(kernel, pins="Package: *\n"))


def test_the_recipe_covers_every_script_and_the_driver_patch() -> None:
    names = {path.name for path in build.recipe_files()}
    assert names >= {"build.py", "assemble", "boot", "customize", "shrinker.cocci", "build-module"}


def test_a_kernel_builds_in_its_own_suite_unless_told_otherwise() -> None:
    kernel = load_kernels()["6.1"]
    assert kernel.suite == kernel.builder_suite == "bookworm"
    assert kernel.sources == kernel.builder_sources


def test_an_unknown_kernel_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"it has .*6\.1"):
        find_kernel("2.4")


def test_a_missing_tool_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host, "_ROOT_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"mmdebstrap.*apt-get install mmdebstrap") as caught:
        host.require_tools(["mmdebstrap"])
    assert caught.value.exit_code == EXIT_UNSUPPORTED


def test_a_full_disk_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"building an image needs .* in {tmp_path}"):
        host.require_free_space(tmp_path, 1 << 60, "building an image")


@pytest.mark.parametrize(
    ("log", "hint"),
    [
        ("Err:1 x\nE: Failed to fetch http://d/ Could not resolve 'd'\n", "is the network up"),
        ("E: Failed to fetch http://d/InRelease 404 Not Found\n", "kernels.toml"),
        ("cp: error writing: No space left on device\n", "free some disk space"),
    ],
)
def test_a_failed_step_is_one_line_and_says_what_next(tmp_path: Path, log: str, hint: str) -> None:
    path = tmp_path / "rootfs.log"
    path.write_text(log)
    error = build.step_error(path)
    assert "in step rootfs: " in error.message
    assert "\n" not in str(error)
    assert hint in error.hint
