# SPDX-License-Identifier: Apache-2.0
"""Scenario files: what they mean, and what is said about wrong ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.lab.scenario import (
    Hog,
    Readers,
    Step,
    find_scenario,
    list_scenarios,
    load_scenario,
)
from balloontrace.thresholds import SLOW_ACK_S

MINIMAL = """
[guest]
memory = "1G"
[[balloon]]
target = "1/2"
limit_s = 10
"""


def parse(tmp_path: Path, text: str) -> str:
    """Return what loading the text complains about."""
    path = tmp_path / "trial.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_scenario(path)
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value.message.removeprefix(f"{path}: ")


def test_page_cache_has_the_founding_fractions() -> None:
    scenario = find_scenario("page-cache")
    assert scenario.memory_bytes == 4 << 30
    assert scenario.readers == Readers(Fraction(42, 64))
    inflate, deflate = scenario.steps
    assert inflate.target == Fraction(53, 64)
    assert inflate.at_limit == "stop-workload"
    assert inflate.grace_s > 0
    assert deflate.target == 0
    assert deflate.stop_workload


def test_every_shipped_scenario_parses_and_is_described() -> None:
    scenarios = list_scenarios()
    assert {"idle", "page-cache"} <= {scenario.name for scenario in scenarios}
    assert all(scenario.description for scenario in scenarios)


def test_a_hog_and_a_host_that_sends_its_target_again() -> None:
    scenario = find_scenario("oom-resend")
    assert scenario.hog == Hog(None, until_given_back=Fraction(1, 8), limit_s=40, mib_per_s=4)
    first, again, last = scenario.steps
    assert (first.resend_s, first.start_hog) == (0.0, False)
    assert last.target == 0
    assert (again.target, again.start_hog, again.until) == (first.target, True, "hog-ends")
    assert again.resend_s > 0


def test_every_finding_has_a_scenario_of_its_own() -> None:
    hogs = {scenario.name: scenario.hog for scenario in list_scenarios()}
    assert hogs["memcg-oom"] == Hog(Fraction(1, 16), None, True, Fraction(1, 32), 20)
    assert hogs["oom-thrash"] == Hog(None, Fraction(1, 64), lock=False, limit_s=40)
    assert find_scenario("slow-host").discard_delay_us * 256 / 1e6 > 2 * SLOW_ACK_S
    assert find_scenario("driver-gone").steps[1].run == "rmmod virtio_balloon"


def test_what_a_guest_is_offered_and_given(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    keys = (
        'memory = "1G"\ndisk = "8G"\nswap = "256M"\nreporting = true\nhinting = true\n'
        'page_poison = false\nkernel_options = "psi=0 page_poison=1"\n'
        "[host]\nstats_interval_s = 2\n"
    )
    wanted = MINIMAL.replace('memory = "1G"', keys).replace("limit_s", "hint_s = 1\nlimit_s")
    path.write_text(wanted)
    scenario = load_scenario(path)
    assert (scenario.disk_bytes, scenario.swap_bytes) == (8 << 30, 256 << 20)
    assert (scenario.reporting, scenario.hinting, scenario.page_poison) == (True, True, False)
    assert scenario.kernel_options == ("psi=0", "page_poison=1")
    assert scenario.stats_interval_s == 2
    assert scenario.steps[0].hint_s == 1.0


def test_a_guest_may_not_run_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    path.write_text(MINIMAL.replace("limit_s", "suspend_s = 8\nstop_s = 1.5\nlimit_s"))
    (step,) = load_scenario(path).steps
    assert (step.suspend_s, step.stop_s) == (8.0, 1.5)


def test_tasks_that_need_a_file_and_a_hog_that_takes_again(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    workload = (
        '[workload]\nread_file = "1/8"\nrandom = true\nmapped = true\nreaders = 4\n'
        '[workload.hog]\ntake = "1/4"\nuse_s = 2\ntimes = 3\npause_s = 0.5\n[[balloon]]\n'
        "start_workload = true"
    )
    path.write_text(MINIMAL.replace("[[balloon]]", workload))
    scenario = load_scenario(path)
    assert scenario.readers == Readers(Fraction(1, 8), random=True, mapped=True, tasks=4)
    assert scenario.hog == Hog(Fraction(1, 4), None, use_s=2.0, times=3, pause_s=0.5)
    assert scenario.steps[0].start_workload


def test_defaults(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    path.write_text(MINIMAL)
    scenario = find_scenario(str(path))
    assert scenario.name == "trial"
    assert scenario.cpus == 2
    assert scenario.deflate_on_oom
    assert scenario.page_poison
    assert (scenario.reporting, scenario.hinting, scenario.kernel_options) == (False, False, ())
    assert (scenario.disk_bytes, scenario.swap_bytes, scenario.stats_interval_s) == (0, 0, 0)
    assert (scenario.readers, scenario.hog, scenario.discard_delay_us) == (None, None, 0)
    assert scenario.steps == (Step(target=Fraction(1, 2), limit_s=10.0),)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('memory = "1G"', 'memory = "lots"'), "guest.memory is 'lots' is not a size"),
        (('memory = "1G"', "memory = 1"), "guest.memory must be of type str"),
        (('memory = "1G"', ""), "guest.memory is missing"),
        (('memory = "1G"', 'memory = "1G"\ncpu = 2'), "guest.cpu is not a key of a scenario"),
        (('memory = "1G"', 'memory = "1G"\ncpus = true'), "guest.cpus must be of type int"),
        (('memory = "1G"', 'memory = "1G"\ncpus = 0'), "guest.cpus must be at least 1"),
        (('"1/2"', '"1/0"'), 'balloon[0].target must be a fraction of RAM such as "53/64"'),
        (('"1/2"', '"3/2"'), "balloon[0].target must be at least 0 and less than 1"),
        (("limit_s = 10", "limit_s = -1"), "balloon[0].limit_s must be a time in seconds"),
        (("limit_s = 10", "limit_s = nan"), "balloon[0].limit_s must be a time in seconds"),
        (("limit_s = 10", ""), "balloon[0].limit_s is missing"),
        (("limit_s = 10", 'limit_s = 1\nat_limit = "x"'), "balloon[0].at_limit must be one of"),
        (("limit_s = 10", "limit_s = 1\nmaybe = 1"), "balloon[0].maybe is not a key"),
        (("[[balloon]]", "[balloon]"), "balloon must be of type list"),
        (("[guest]", "title = 1\n[guest]"), "title is not a key of a scenario"),
        (("[guest]", "[workload]\n[guest]"), "workload must have read_file or hog"),
        (("[guest]", "[workload.hog]\n[guest]"), "workload.hog.take or until_given_back is needed"),
        (
            ("[guest]", '[workload.hog]\ntake = "2"\n[guest]'),
            "workload.hog.take must be at least 0",
        ),
        (
            ("[guest]", '[workload.hog]\ntake = "1/2"\nlimit_s = -1\n[guest]'),
            "workload.hog.limit_s must be at least 0",
        ),
        (("[guest]", "[host]\nslow = true\n[guest]"), "host.slow is not a key of a scenario"),
        (
            ("limit_s = 10", "limit_s = 1\nstart_hog = true"),
            "balloon[0].start_hog or until needs a",
        ),
        (("limit_s = 10", 'limit_s = 1\nuntil = "x"'), "balloon[0].until must be one of"),
        (('memory = "1G"', 'memory = "1G"\ndisk = "4G"'), "guest.disk must be at least 6G"),
        (('memory = "1G"', 'memory = "1G"\nswap = "0"'), "guest.swap is '0' is not a size"),
        (('memory = "1G"', 'memory = "1G"\nhinting = 1'), "guest.hinting must be of type bool"),
        (
            ('memory = "1G"', 'memory = "1G"\nkernel_options = ["psi=0"]'),
            "guest.kernel_options must be of type str",
        ),
        (
            ("[guest]", "[host]\nstats_interval_s = 0.5\n[guest]"),
            "host.stats_interval_s must be of type int",
        ),
        (
            ("[guest]", '[workload]\nread_file = "1/2"\nreaders = 0\n[guest]'),
            "workload.readers must be at least 1",
        ),
        (
            ("[guest]", '[workload.hog]\nuntil_given_back = "1/2"\nuse_s = 1\n[guest]'),
            "workload.hog.use_s or times needs take",
        ),
        (
            ("limit_s = 10", "limit_s = 1\nstart_workload = true"),
            "balloon[0].start_workload needs a read_file",
        ),
        (
            ("limit_s = 10", 'limit_s = 1\nuntil = "hog-has-taken"'),
            "balloon[0].start_hog or until needs a",
        ),
        (
            (
                "[[balloon]]",
                '[workload.hog]\nuntil_given_back = "1/2"\n[[balloon]]\nuntil = "hog-has-taken"',
            ),
            "balloon[0].until hog-has-taken needs take",
        ),
        (("limit_s = 10", "limit_s = 1\nhint_s = 1"), "balloon[0].hint_s needs hinting in [guest]"),
        (("[guest]", "[guest"), "not TOML: "),
    ],
)
def test_a_wrong_file_is_named_with_its_key(
    tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    assert complaint in parse(tmp_path, MINIMAL.replace(*change))


def test_an_unknown_scenario_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"idle, .*page-cache"):
        find_scenario("nonsense")
