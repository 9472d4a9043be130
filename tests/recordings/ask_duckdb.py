# SPDX-License-Identifier: Apache-2.0
"""The questions of a report, asked of DuckDB over the Parquet copy of a recording.

Prints one JSON object with the keys of `balloontrace report --json` that are asked for here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import duckdb

from balloontrace.events import CAUSES, UNKNOWN_PAGES, WITHIN, number_of

_SEEN = f"CASE WHEN done = {UNKNOWN_PAGES} THEN 0 ELSE done END"
_CAUSE = " ".join(
    f"WHEN within & {number_of(WITHIN, bit)} <> 0 THEN '{cause}'" for cause, bit in CAUSES
)
_WORKER, _LEAK, _MIGRATE = (number_of(WITHIN, name) for name in ("worker", "leak", "migrate"))

TOTALS = f"""
SELECT (SELECT sum({_SEEN}) FROM fill), (SELECT sum({_SEEN}) FROM leak),
       (SELECT coalesce(sum({_SEEN}), 0) FROM migrate)
"""

CAUSES_BY_ACTOR = f"""
WITH leaks AS (
    SELECT *, CASE {_CAUSE} ELSE 'unknown' END AS cause FROM leak
), told AS (
    SELECT *, CASE
        WHEN cause = 'host' THEN 'worker'
        WHEN cause = 'shrinker' AND tid IN $kswapd THEN 'kswapd'
        WHEN cause = 'shrinker' AND within & {_WORKER} <> 0 THEN 'inflation'
        WHEN pid IN $recorder THEN 'recorder' ELSE 'task' END AS actor
    FROM leaks
)
SELECT cause, actor, CASE WHEN actor = 'task' THEN comm END AS name,
       count(*), sum({_SEEN}) AS pages, sum(duration_ns)::BIGINT
FROM told GROUP BY ALL ORDER BY pages DESC
"""

EPISODES = f"""
WITH moves AS (
    SELECT start_ns + duration_ns AS end_ns, record, ({_SEEN})::BIGINT AS change FROM fill
    UNION ALL
    SELECT start_ns + duration_ns, record, -({_SEEN})::BIGINT FROM leak
), sizes AS (
    SELECT *, sum(change) OVER (ORDER BY end_ns, record)::BIGINT AS size FROM moves
), goals AS (
    SELECT start_ns AS goal_ns, asked::BIGINT AS target,
           row_number() OVER (ORDER BY start_ns) AS number,
           lead(start_ns, 1, $end_ns) OVER (ORDER BY start_ns) AS until_ns
    FROM target
), episodes AS (
    SELECT goals.*, coalesce(size, 0)::BIGINT AS start_size,
           sign(target - coalesce(size, 0)) AS direction
    FROM goals ASOF LEFT JOIN sizes ON goal_ns >= end_ns
), steps AS (
    SELECT number, start_size, direction, target, sizes.*,
           max(greatest((size - start_size) * direction, 0))
               OVER (PARTITION BY number ORDER BY end_ns, record) AS mark
    FROM sizes ASOF JOIN episodes ON end_ns > goal_ns
), advances AS (
    SELECT number, end_ns, mark >= abs(target - start_size) AS there,
           mark > lag(mark, 1, 0) OVER (PARTITION BY number ORDER BY end_ns, record) AS advanced
    FROM steps
), ended AS (
    SELECT e.number, min(end_ns) FILTER (there) AS reached_ns
    FROM episodes e LEFT JOIN advances USING (number) GROUP BY e.number
), edges AS (
    SELECT number, goal_ns AS edge FROM episodes
    UNION ALL
    SELECT number, end_ns FROM advances JOIN ended USING (number)
    WHERE advanced AND (reached_ns IS NULL OR end_ns <= reached_ns)
    UNION ALL
    SELECT number, coalesce(reached_ns, until_ns) FROM episodes JOIN ended USING (number)
), lengths AS (
    SELECT number, edge, lead(edge) OVER (PARTITION BY number ORDER BY edge) - edge AS length
    FROM edges
), longest AS (
    SELECT number, max(length) AS longest FROM lengths GROUP BY number
), moved AS (
    SELECT number, sum(change) FILTER (change > 0) AS inflated,
           -sum(change) FILTER (change < 0) AS deflated
    FROM steps JOIN ended USING (number) WHERE reached_ns IS NULL OR end_ns <= reached_ns
    GROUP BY number
)
SELECT goal_ns, coalesce(reached_ns, until_ns), reached_ns IS NOT NULL, target, start_size,
       inflated::BIGINT, deflated::BIGINT, longest::BIGINT
FROM episodes JOIN ended USING (number) JOIN longest USING (number) LEFT JOIN moved USING (number)
WHERE direction <> 0 ORDER BY number
"""

PHASES = f"""
SELECT (SELECT (count(*), sum({_SEEN}), sum(duration_ns)::BIGINT) FROM fill),
       (SELECT (count(*), sum({_SEEN}), sum(duration_ns)::BIGINT) FROM leak),
       (SELECT sum(duration_ns)::BIGINT FROM ack WHERE queue IN $inflate
        AND within & {_WORKER} <> 0 AND within & {_LEAK | _MIGRATE} = 0),
       (SELECT sum(duration_ns)::BIGINT FROM ack WHERE queue IN $deflate
        AND within & {_LEAK} <> 0 AND within & {_MIGRATE} = 0)
"""


def answers(parquet: Path) -> dict[str, Any]:
    """What is asked, answered from the files in this directory."""
    facts = json.loads((parquet / "facts.json").read_text(encoding="utf-8"))
    begin_ns, queues = facts["begin_ns"], facts["queues"]
    database = duckdb.connect()
    for file in parquet.glob("*.parquet"):
        database.execute(f"CREATE VIEW {file.stem} AS SELECT * FROM '{file}'")
    inflated, deflated, migrated = database.execute(TOTALS).fetchall()[0]
    causes = database.execute(
        CAUSES_BY_ACTOR, {"kswapd": facts["kswapd"], "recorder": facts["recorder"]}
    ).fetchall()
    episodes = database.execute(EPISODES, {"end_ns": facts["end_ns"]}).fetchall()
    fill, leak, inflate_ns, deflate_ns = database.execute(
        PHASES,
        {way: [queues[way], queues["other"]] for way in ("inflate", "deflate")},
    ).fetchall()[0]
    return {
        "totals": {
            "inflated_pages": int(inflated),
            "deflated_pages": int(deflated),
            "migrated_pages": int(migrated),
            "round_trip_ratio": 1 - abs(int(inflated) - int(deflated)) / int(inflated + deflated),
        },
        "causes": [
            {"cause": cause, "actor_kind": actor, "calls": calls, "pages": int(pages),
             "busy_s": busy_ns / 1e9}
            for cause, actor, _, calls, pages, busy_ns in causes
        ],
        "episodes": [
            {
                "start_s": (start_ns - begin_ns) / 1e9,
                "end_s": (end_ns - begin_ns) / 1e9,
                "target_pages": target,
                "start_pages": start_size,
                "inflated_pages": went_in,
                "deflated_pages": went_out,
                "longest_no_progress_s": longest_ns / 1e9,
            }
            for start_ns, end_ns, _, target, start_size, went_in, went_out, longest_ns in episodes
        ],
        "phases": {
            "fill": _phase(fill, inflate_ns),
            "leak": _phase(leak, deflate_ns),
        },
    }  # fmt: skip


def _phase(calls: tuple[Any, ...], ack_ns: int) -> dict[str, Any]:
    number, pages, total_ns = calls
    return {
        "calls": number,
        "pages": int(pages),
        "total_s": total_ns / 1e9,
        "host_ack_s": ack_ns / 1e9,
    }


if __name__ == "__main__":
    print(json.dumps(answers(Path(sys.argv[1]))))
