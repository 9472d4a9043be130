# SPDX-License-Identifier: Apache-2.0
"""The image cache and its recipe; no image is built here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.lab import build, host
from balloontrace.lab.image import IMAGE_DISK_BYTES, cache_directory, find_image, recipe_key
from balloontrace.lab.kernels import Kernel, find_kernel, load_kernels
from balloontrace.lab.sizes import parse_size


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "balloontrace"
    assert find_image(find_kernel("6.1")) is None


def test_the_key_follows_the_kernel_entry() -> None:
    kernel, files = find_kernel("6.1"), build.recipe_files(find_kernel("6.1"))
    assert recipe_key(kernel, files) == recipe_key(find_kernel("6.1"), files)
    assert recipe_key(kernel, files) != recipe_key(replace(kernel, pins="Package: *\n"), files)


def test_the_recipe_covers_every_script_and_the_driver_patch() -> None:
    ours = {"build.py", "debian.py", "assemble", "boot", "customize", "install"}
    names = {path.name for path in build.recipe_files(find_kernel("6.1"))}
    assert names >= {*ours, "shrinker.cocci", "build-module"}
    names = {path.name for path in build.recipe_files(find_kernel("micro"))}
    assert names >= {*ours, "config", "build-kernel"}
    assert "shrinker.cocci" not in names


def test_the_disk_has_the_size_that_scenarios_are_held_to() -> None:
    assert parse_size(build._ROOTFS_SIZE) == IMAGE_DISK_BYTES


def test_a_kernel_builds_in_its_own_suite_unless_told_otherwise() -> None:
    kernels = load_kernels()
    assert kernels["6.1"].suite == kernels["6.1"].builder_suite == "bookworm"
    assert kernels["6.1"].sources == kernels["6.1"].builder_sources
    assert (kernels["5.10"].suite, kernels["5.10"].builder_suite) == ("bookworm", "bullseye")


def test_kernels_are_tables_of_the_data_file_in_its_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "kernels.toml"
    path.write_text(Kernel.FILE.read_text().replace('["6.1"]', '["9.9"]'))
    monkeypatch.setattr(Kernel, "FILE", path)
    assert list(load_kernels()) == ["5.10", "9.9", "6.12", "7.2", "micro"]


def test_what_a_suite_does_not_have_is_not_asked_for(tmp_path: Path) -> None:
    kernel = replace(find_kernel("6.1"), without=("bpftrace", "pahole"))
    guest = build._rootfs_command(kernel, tmp_path)
    builder = build._builder_command(kernel, tmp_path)
    (packages,) = [word for word in guest if word.startswith("--include=")]
    assert "bpftrace" not in packages
    assert "linux-image-cloud-amd64" in packages
    assert not [word for word in builder if "pahole" in word]


def test_an_unknown_kernel_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"it has .*6\.1"):
        find_kernel("2.4")


def test_a_driver_that_is_built_in_cannot_be_exchanged() -> None:
    assert find_kernel("6.1", "shrinker") == find_kernel("6.1")
    with pytest.raises(UserError, match="kernel micro has its own driver built in"):
        find_kernel("micro", "shrinker")


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
