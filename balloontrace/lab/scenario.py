# SPDX-License-Identifier: Apache-2.0
"""Scenarios: what happens to a guest, as TOML files.

Top level: ``description``, ``repeat``, ``means``; ``[guest]`` memory, cpus, disk, swap,
deflate_on_oom, reporting, hinting, page_poison, kernel_options; ``[workload]`` (optional)
read_file, random, mapped, readers, ``[workload.hog]`` (see Hog); ``[host]`` (optional)
discard_delay_us, stats_interval_s, locked; ``[[balloon]]`` steps in order (see Step). Sizes are
fractions of RAM, but for memory, disk and swap. docs/lab.md shows one.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.lab.image import IMAGE_DISK_BYTES
from balloontrace.lab.scenario_table import ScenarioTable

SCENARIOS_DIRECTORY = Path(__file__).with_name("scenarios")

AT_LIMIT = ("go-on", "stop-workload")
UNTIL = ("reached", "at-rest", "hog-has-taken", "hog-ends")


@dataclass(frozen=True)
class Step:
    """One target of the balloon, as a fraction of RAM, and how long to wait for it.

    stop_workload: end the workload; run: a command that the guest runs; touch: a task touches
    so much of RAM and ends; start_workload: start the readers; hint_s: the host takes hints of
    free pages for so long; suspend_s: the guest is suspended to RAM for so long; stop_s: the host
    does not run it for so long; rest_s: it is left alone for so long; in this order, before the
    target is set. start_hog: start the hog once it is set; resend_s: send the target again
    every so many seconds, 0: never. until: wait until the target is reached; first until no page
    of the balloon is moved any more; or until the hog has taken its memory, limit_s at most; or
    until it has ended, which is killed after limit_s. give_up_s: or until the balloon came no
    closer for so long, 0: however long. at_limit: what to do when limit_s passes without the
    target: go on, or stop the workload and wait another grace_s.
    """

    target: Fraction
    limit_s: float
    at_limit: str = "go-on"
    grace_s: float = 0.0
    stop_workload: bool = False
    start_workload: bool = False
    touch: Fraction | None = None
    hint_s: float = 0.0
    suspend_s: float = 0.0
    stop_s: float = 0.0
    rest_s: float = 0.0
    run: str = ""
    start_hog: bool = False
    resend_s: float = 0.0
    until: str = "reached"
    give_up_s: float = 0.0


@dataclass(frozen=True)
class Hog:
    """A task that takes memory, started by a step; sizes are fractions of RAM.

    It takes so much and ends (take), or takes until the balloon has given up so much
    (until_given_back); one of the two. lock: its program stays in memory; memory_max: it runs in a
    memory cgroup with this limit; limit_s: the guest's kernel ends it then, 0: never; mib_per_s:
    how fast it takes until so much was given back, 0: as fast as it can. With take, use_s: it
    reads all it took, over and over, for so long; times: so often it takes it and frees it again,
    pause_s apart.
    """

    take: Fraction | None
    until_given_back: Fraction | None
    lock: bool = True
    memory_max: Fraction | None = None
    limit_s: int = 0
    mib_per_s: int = 0
    use_s: float = 0.0
    times: int = 1
    pause_s: float = 0.0


@dataclass(frozen=True)
class Readers:
    """Tasks that read one file over and over; its size is a fraction of RAM.

    random: it is not sparse, but random bytes on the disk. mapped: each task touches the file's
    pages through a mapping, in random order, as it would its working set; else it reads the file
    from begin to end. They start once the file has been read, or at the step that says so.
    """

    file: Fraction
    random: bool = False
    mapped: bool = False
    tasks: int = 1


@dataclass(frozen=True)
class Scenario:
    """A parsed scenario.

    disk_bytes: the size of the guest's disk, 0: the image's; swap_bytes: of its swap file, 0: none.
    reporting, hinting, page_poison: whether the device offers these features; kernel_options:
    further words of the kernel's command line. discard_delay_us: how much longer the host takes
    for each page of the balloon while the steps last; stats_interval_s: how often it asks for the
    balloon's statistics meanwhile, 0: never; locked: it keeps all of the guest's memory. means: of
    `record`, '' for the best.
    """

    name: str
    description: str
    memory_bytes: int
    cpus: int
    deflate_on_oom: bool
    readers: Readers | None
    hog: Hog | None
    discard_delay_us: int
    steps: tuple[Step, ...]
    repeat: int = 1
    disk_bytes: int = 0
    swap_bytes: int = 0
    reporting: bool = False
    hinting: bool = False
    page_poison: bool = True
    kernel_options: tuple[str, ...] = ()
    stats_interval_s: int = 0
    locked: bool = False
    means: str = ""


def list_scenarios() -> list[Scenario]:
    """Return the scenarios balloontrace comes with, by name."""
    return [load_scenario(path) for path in sorted(SCENARIOS_DIRECTORY.glob("*.toml"))]


def find_scenario(name: str) -> Scenario:
    """Return a scenario by its name, or from a path ending in ``.toml``.

    Raises UserError if there is none, or if the file is wrong.
    """
    path = Path(name) if name.endswith(".toml") else SCENARIOS_DIRECTORY / f"{name}.toml"
    if not path.is_file():
        names = ", ".join(known.name for known in list_scenarios())
        raise UserError(f"there is no scenario {name!r}", f"there are {names}", EXIT_USAGE)
    return load_scenario(path)


def load_scenario(path: Path) -> Scenario:
    """Parse one file. Raises UserError naming the file and the key that is wrong."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}", exit_code=EXIT_USAGE) from error
    top = ScenarioTable(path, "", document)
    guest = top.table("guest")
    workload = top.table("workload")
    host = top.table("host")
    hog = _hog(workload.table("hog")) if workload.has("hog") else None
    readers = _readers(workload) if workload.has("read_file") else None
    if "workload" in document and hog is None and readers is None:
        raise top.wrong("workload", "must have read_file or hog")
    scenario = Scenario(
        name=path.stem,
        description=top.take("description", str, ""),
        memory_bytes=guest.size("memory"),
        cpus=guest.whole("cpus", 2, least=1),
        deflate_on_oom=guest.take("deflate_on_oom", bool, True),
        readers=readers,
        hog=hog,
        discard_delay_us=host.whole("discard_delay_us", 0, least=0),
        repeat=top.whole("repeat", 1, least=1),
        disk_bytes=guest.size("disk", least=IMAGE_DISK_BYTES) if guest.has("disk") else 0,
        swap_bytes=guest.size("swap") if guest.has("swap") else 0,
        reporting=guest.take("reporting", bool, False),
        hinting=guest.take("hinting", bool, False),
        page_poison=guest.take("page_poison", bool, True),
        kernel_options=tuple(guest.take("kernel_options", str, "").split()),
        stats_interval_s=host.whole("stats_interval_s", 0, least=0),
        locked=host.take("locked", bool, False),
        means=top.take("means", str, ""),
        steps=tuple(_step(table) for table in top.tables("balloon")),
    )
    for table in (guest, workload, host, top):
        table.finish()
    for index, step in enumerate(scenario.steps):
        _check_needs(scenario, step, top, f"balloon[{index}].")
    return scenario


def _readers(table: ScenarioTable) -> Readers:
    return Readers(
        file=table.fraction("read_file"),
        random=table.take("random", bool, False),
        mapped=table.take("mapped", bool, False),
        tasks=table.whole("readers", 1, least=1),
    )


def _hog(table: ScenarioTable) -> Hog:
    if table.has("take") == table.has("until_given_back"):
        raise table.wrong("take", "or until_given_back is needed, and not both")
    hog = Hog(
        take=table.optional_fraction("take"),
        until_given_back=table.optional_fraction("until_given_back"),
        lock=table.take("lock", bool, True),
        memory_max=table.optional_fraction("memory_max"),
        limit_s=table.whole("limit_s", 0, least=0),
        mib_per_s=table.whole("mib_per_s", 0, least=0),
        use_s=table.seconds("use_s", 0.0),
        times=table.whole("times", 1, least=1),
        pause_s=table.seconds("pause_s", 0.0),
    )
    if hog.take is None and (hog.use_s or hog.times > 1):
        raise table.wrong("use_s", "or times needs take")
    table.finish()
    return hog


def _step(table: ScenarioTable) -> Step:
    step = Step(
        target=table.fraction("target"),
        limit_s=table.seconds("limit_s"),
        at_limit=table.one_of("at_limit", AT_LIMIT),
        grace_s=table.seconds("grace_s", 0.0),
        stop_workload=table.take("stop_workload", bool, False),
        start_workload=table.take("start_workload", bool, False),
        touch=table.optional_fraction("touch"),
        hint_s=table.seconds("hint_s", 0.0),
        suspend_s=table.seconds("suspend_s", 0.0),
        stop_s=table.seconds("stop_s", 0.0),
        rest_s=table.seconds("rest_s", 0.0),
        run=table.take("run", str, ""),
        start_hog=table.take("start_hog", bool, False),
        resend_s=table.seconds("resend_s", 0.0),
        until=table.one_of("until", UNTIL),
        give_up_s=table.seconds("give_up_s", 0.0),
    )
    table.finish()
    return step


def _check_needs(scenario: Scenario, step: Step, top: ScenarioTable, name: str) -> None:
    """Raise UserError for a step that wants of the guest what the scenario does not give it."""
    if scenario.hog is None and (step.start_hog or step.until.startswith("hog")):
        raise top.wrong(f"{name}start_hog", "or until needs a [workload.hog]")
    if step.until == "hog-has-taken" and (scenario.hog is None or scenario.hog.take is None):
        raise top.wrong(f"{name}until", "hog-has-taken needs take in [workload.hog]")
    if scenario.readers is None and step.start_workload:
        raise top.wrong(f"{name}start_workload", "needs a read_file in [workload]")
    if not scenario.hinting and step.hint_s:
        raise top.wrong(f"{name}hint_s", "needs hinting in [guest]")
