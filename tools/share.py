# SPDX-License-Identifier: Apache-2.0
"""Writes share/, which packages and the wheel bring along: manual pages and completions, rules for
Prometheus, dashboards for Grafana.

python -m tools.share
"""

from __future__ import annotations

from pathlib import Path

from tools import command_lines, completion, dashboard, manual, prometheus

SHARE = Path(__file__).parents[1] / "share"


def files() -> dict[str, str]:
    """Name below share/ -> content."""
    lines = (command_lines.balloontrace(), command_lines.balloontrace_record())
    programs = [line.program for line in lines]
    made = {}
    for line in lines:
        name = line.program
        others = tuple(program for program in programs if program != name)
        made[f"man/man1/{name}.1"] = manual.page(line, others)
        made[f"bash-completion/completions/{name}"] = completion.bash(line)
        made[f"zsh/site-functions/_{name}"] = completion.zsh(line)
        made[f"fish/vendor_completions.d/{name}.fish"] = completion.fish(line)
    made["prometheus/balloontrace.rules.yml"] = prometheus.rules()
    for each in (dashboard.guest(), dashboard.fleet()):
        made[f"grafana/{each['uid']}.json"] = dashboard.text(each)
    return made


def main() -> None:
    """Write them."""
    for name, content in files().items():
        path = SHARE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
