# SPDX-License-Identifier: Apache-2.0
"""What the lab tells Vagrant, and what it reads from it; tests/vagrant runs the machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.lab.host import require_memory
from balloontrace.lab.kernels import find_kernel, find_machine, load_kernels
from balloontrace.lab.qemu import GuestConfig
from balloontrace.lab.remote import Address
from balloontrace.lab.vagrant import VagrantGuest, environment, parse_ssh_config

SSH_CONFIG = """\
Host bookworm
  HostName 192.168.121.146
  User root
  Port 22
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "/home/a b/.vagrant.d/boxes/ssh_key"
  IdentitiesOnly yes
  LogLevel FATAL

"""


def test_ssh_config_says_where_the_machine_is() -> None:
    expected = Address("192.168.121.146", 22, Path("/home/a b/.vagrant.d/boxes/ssh_key"))
    assert parse_ssh_config(SSH_CONFIG) == expected


@pytest.mark.parametrize("text", ["", "Host x\n", SSH_CONFIG.replace("Port 22", "Port many")])
def test_ssh_config_of_no_machine_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="names no machine"):
        parse_ssh_config(text)


def test_the_size_of_a_machine_travels_as_variables() -> None:
    config = GuestConfig(memory_bytes=3 << 29, cpus=3, deflate_on_oom=False)
    said = environment(config)
    assert (said["BALLOONTRACE_MEMORY"], said["BALLOONTRACE_CPUS"]) == ("1536", "3")
    assert said["BALLOONTRACE_DEFLATE_ON_OOM"] == "off"
    assert "BALLOONTRACE_DISK" not in said
    rounded = environment(GuestConfig(disk_bytes=(8 << 30) + 1))
    assert rounded["BALLOONTRACE_DISK"] == "9"


@pytest.mark.parametrize(
    "config",
    [
        GuestConfig(hinting=True),
        GuestConfig(page_poison=False),
        GuestConfig(kernel_options=("psi=0",)),
    ],
)
def test_what_a_machine_cannot_have_is_refused(config: GuestConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a Vagrant machine cannot have") as caught:
        VagrantGuest(config, tmp_path / "console.log", print)
    assert caught.value.exit_code == EXIT_UNSUPPORTED


def test_each_kernel_has_a_machine_of_its_own() -> None:
    kernels = [kernel for kernel in load_kernels().values() if not kernel.config]
    assert len({kernel.machine for kernel in kernels}) == len(kernels)
    assert find_machine("bullseye").name == "5.10"
    with pytest.raises(UserError, match="no machine 'sarge'"):
        find_machine("sarge")
    with pytest.raises(UserError, match=r"no Vagrant machine with kernel micro; .* take 5\.10, "):
        _ = find_kernel("micro").machine


def test_a_guest_larger_than_this_machine_is_refused() -> None:
    with pytest.raises(UserError, match="the guest wants") as caught:
        require_memory(1 << 60)
    assert caught.value.exit_code == EXIT_UNSUPPORTED
