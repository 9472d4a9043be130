# SPDX-License-Identifier: Apache-2.0
"""Vagrant boxes: the lab's own images in the clothes that vagrant-libvirt wants.

A box is a tar archive of metadata.json, the disk as box.img, and a Vagrantfile with the machine's
defaults. Ours adds the kernel, the initrd (the disk has no boot loader) and the private key that
lets root in.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from balloontrace.lab.host import require_free_space, require_tools, tool
from balloontrace.lab.image import Image, cache_directory, ensure_image
from balloontrace.lab.kernels import Kernel
from balloontrace.lab.qemu import GuestConfig, kernel_parameters
from balloontrace.lab.sizes import whole_gib
from balloontrace.lab.vagrant import run_vagrant

Progress = Callable[[str], None]

_BOX_BYTES = 3 << 30  # the disk, the archive of it, and Vagrant's copy
_FILES = ("metadata.json", "Vagrantfile", "box.img", "vmlinuz", "initrd.img", "ssh_key")
_VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.ssh.username = "root"
  config.ssh.insert_key = false
  config.ssh.private_key_path = File.expand_path("ssh_key", __dir__)
  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd.img", __dir__)
    libvirt.cmd_line = "{parameters}"
  end
end
"""


def box_name(kernel: Kernel) -> str:
    """Return the name under which Vagrant knows the kernel's box."""
    return f"balloontrace/{kernel.machine}"


def add_box(kernel: Kernel, progress: Progress) -> str:
    """Give Vagrant the box of a kernel's image, unless it has it, and return the box's version.

    The version is the time at which the image was built (UTC). Raises UserError when the host
    lacks a tool or disk space, and when the image cannot be built or Vagrant refuses the box.
    """
    require_tools(("qemu-img", "vagrant"))
    image = ensure_image(kernel, progress)
    version = _version(image)
    if (box_name(kernel), version) in _known_boxes():
        return version
    cache = cache_directory()
    require_free_space(cache, _BOX_BYTES, "making a box")
    with tempfile.TemporaryDirectory(prefix="box-", dir=cache) as work:
        progress(f"making box {box_name(kernel)} {version}")
        catalog = _write_catalog(kernel, version, _pack(image, Path(work)))
        progress("handing it to Vagrant")
        run_vagrant("box", "add", "--provider", "libvirt", str(catalog))
    return version


def _version(image: Image) -> str:
    built = datetime.fromtimestamp(image.rootfs.stat().st_mtime, UTC)
    return f"{built:%Y%m%d.%H%M%S}"


def _known_boxes() -> set[tuple[str, str]]:
    """The names and versions of the boxes Vagrant has."""
    listed = run_vagrant("box", "list")
    return set(re.findall(r"^(\S+)\s+\(libvirt, ([^,)]+)", listed, re.MULTILINE))


def _pack(image: Image, work: Path) -> Path:
    """Make the archive in the work directory."""
    disk = work / "box.img"
    command = [tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2"]
    subprocess.run([*command, str(image.rootfs), str(disk)], check=True)
    size = whole_gib(image.rootfs.stat().st_size)
    facts = {"provider": "libvirt", "format": "qcow2", "virtual_size": size}
    (work / "metadata.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    parameters = f"{kernel_parameters(GuestConfig())} balloontrace.network=dhcp"
    (work / "Vagrantfile").write_text(
        _VAGRANTFILE.replace("{parameters}", parameters), encoding="utf-8"
    )
    for path in (image.vmlinuz, image.initrd, image.ssh_key):
        shutil.copy(path, work / path.name)
    archive = work / "package.box"
    with tarfile.open(archive, "w") as box:
        for name in _FILES:
            box.add(work / name, name)
    disk.unlink()
    return archive


def _write_catalog(kernel: Kernel, version: str, archive: Path) -> Path:
    """Write the file that gives a box its version."""
    provider = {"name": "libvirt", "url": archive.as_uri()}
    catalog = {
        "name": box_name(kernel),
        "versions": [{"version": version, "providers": [provider]}],
    }
    path = archive.with_name("catalog.json")
    path.write_text(json.dumps(catalog) + "\n", encoding="utf-8")
    return path
