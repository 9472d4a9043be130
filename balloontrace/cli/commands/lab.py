# SPDX-License-Identifier: Apache-2.0
"""balloontrace lab: reproducible guests to experiment in."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from balloontrace.cli import output
from balloontrace.errors import EXIT_FAILURE, EXIT_USAGE, UserError

app = typer.Typer(help="Build and run reproducible guests with a balloon.", no_args_is_help=True)

_KERNEL_HELP = "A kernel of `lab list`."
_USERSPACE_HELP = "A userspace of `lab list`, with the one file in place of the whole package."


@app.command("list")
def list_command() -> None:
    """List the kernels, the userspaces and the scenarios."""
    from balloontrace.lab.image import find_image
    from balloontrace.lab.kernels import load_kernels
    from balloontrace.lab.scenario import list_scenarios
    from balloontrace.lab.userspaces import load_userspaces

    output.result("Kernels")
    for kernel in load_kernels().values():
        image = find_image(kernel)
        state = f"built, {image.release}" if image else "not built"
        output.result(f"  {kernel.name:15} {kernel.origin}, {state}")
    output.result("Userspaces")
    for userspace in load_userspaces().values():
        output.result(f"  {userspace.name:15} Debian {userspace.suite}, no BCC, no Typer")
    output.result("Scenarios")
    scenarios = list_scenarios()
    width = max(len(scenario.name) for scenario in scenarios)
    for scenario in scenarios:
        output.result(f"  {scenario.name:{width}} {scenario.description}")


@app.command("build")
def build_command(kernel: str = typer.Option("6.1", "--kernel", help=_KERNEL_HELP)) -> None:
    """Build a guest's image, unless it is there already."""
    from balloontrace.lab.image import ensure_image
    from balloontrace.lab.kernels import find_kernel

    image = ensure_image(find_kernel(kernel), output.status)
    output.status(f"image of kernel {image.release} in {image.directory}")


@app.command("box")
def box_command(
    machine: str = typer.Argument("bookworm", help="A Debian release of `lab list`."),
) -> None:
    """Make the Vagrant box of a release's kernel, and add it to Vagrant's."""
    from balloontrace.lab.box import add_box, box_name
    from balloontrace.lab.kernels import find_machine

    kernel = find_machine(machine)
    version = add_box(kernel, output.status)
    output.status(f"Vagrant has box {box_name(kernel)} {version}; next: vagrant up {machine}")


@app.command("run")
def run_command(
    scenario: str = typer.Argument(..., help="A scenario of `lab list`, or a TOML file."),
    kernel: str = typer.Option("6.1", "--kernel", help=_KERNEL_HELP),
    driver: str = typer.Option("stock", "--driver", help="stock, shrinker, or stock,shrinker."),
    memory: Optional[str] = typer.Option(
        None, "--memory", help="The guest's RAM, such as 4G.", show_default="the scenario's"
    ),
    cpus: Optional[int] = typer.Option(
        None, "--cpus", min=1, help="The guest's CPUs.", show_default="the scenario's"
    ),
    out: Path = typer.Option(Path("."), "--out", file_okay=False, help="Where the files go."),
    provider: str = typer.Option(
        "qemu",
        "--provider",
        help="qemu: a disposable guest; vagrant: the kernel's machine.",
    ),
) -> None:
    """Run a scenario in a fresh guest, recording it from inside, once for each driver."""
    from balloontrace.lab import boots
    from balloontrace.lab.qemu import GuestConfig
    from balloontrace.lab.run import PROVIDERS, run_scenario
    from balloontrace.lab.scenario import find_scenario
    from balloontrace.lab.sizes import parse_size

    if provider not in PROVIDERS:
        hint = f"the providers are {', '.join(PROVIDERS)}"
        raise UserError(f"there is no provider {provider!r}", hint, EXIT_USAGE)
    plan = find_scenario(scenario)
    configs = [
        GuestConfig(
            kernel=kernel,
            driver=name,
            memory_bytes=parse_size(memory) if memory else plan.memory_bytes,
            cpus=cpus or plan.cpus,
            disk_bytes=plan.disk_bytes,
            deflate_on_oom=plan.deflate_on_oom,
            reporting=plan.reporting,
            hinting=plan.hinting,
            page_poison=plan.page_poison,
            kernel_options=plan.kernel_options,
            locked=plan.locked,
        )
        for name in _drivers(driver)
    ]
    with boots.told(output.status):
        for config in configs:
            result = run_scenario(plan, config, out, output.status, provider)
            output.status(f"wrote {result.recording}, and the host's view in {result.host_view}")
            output.status(f"next: balloontrace report {result.recording}")


@app.command("shell")
def shell_command(
    kernel: str = typer.Option("6.1", "--kernel", help=_KERNEL_HELP),
    driver: str = typer.Option("stock", "--driver", help="stock, shrinker or none."),
    memory: str = typer.Option("1G", "--memory", help="The guest's RAM."),
    userspace: str = typer.Option(
        "", "--userspace", help=_USERSPACE_HELP, show_default="the kernel's own"
    ),
) -> None:
    """Give a root shell in a fresh guest, with the working tree's balloontrace installed."""
    from balloontrace.lab.guest import Guest, image_of
    from balloontrace.lab.qemu import GuestConfig
    from balloontrace.lab.sizes import parse_size

    (name,) = _drivers(driver, one=True)
    config = GuestConfig(
        kernel=kernel, driver=name, userspace=userspace, memory_bytes=parse_size(memory)
    )
    image = image_of(config, output.status)
    output.status(f"booting a guest with kernel {image.release}")
    with Guest(image, config, output.status) as guest:
        guest.install_balloontrace()
        output.status("a shell in the guest; it ends, and all is forgotten, when you leave")
        status = guest.shell()
    if status != 0:
        raise typer.Exit(EXIT_FAILURE)


def _drivers(text: str, one: bool = False) -> List[str]:
    """Return the driver variants named in a comma-separated list; raise UserError for others."""
    from balloontrace.lab.qemu import DRIVERS

    names = [text] if one else text.split(",")
    for name in names:
        if name not in DRIVERS:
            hint = f"the drivers are {', '.join(DRIVERS)}"
            raise UserError(f"there is no driver {name!r}", hint, EXIT_USAGE)
    return names
