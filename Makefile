# make demo            the founding experiment in two real guests, ends with the table
# make test            lint, types, unit tests, the tests in real guests and with a Vagrant machine
# make check           what a change should pass first: lint, types, unit tests, every seam on one kernel
# make test-vagrant    the Vagrant lab in a libvirt of its own; part of make test
# make bench           what recording costs a guest, beside bpftrace and nothing
# make bench-watch     what a watcher costs, beside bpftrace and nothing
# make bench-live      what looking at a guest costs where it is looked at
# make bench-fleet     what reading 10 to 10,000 recordings costs, with Dask and without
# make bench-report    what reports of long recordings cost, beside DuckDB
# make bench-smallest  whether a guest of 128 MiB records from its first start
# make bench-memory    what the recorder's memory is, and what its imports would cost
# make bench-emulator  which QEMU kills its guests, and how fast it is
# make torture, make soak, make fuzz   recorders killed at random; a long recording; hostile files
# make docs, make support, make golden   what is written by commands: events, options, kernels, reports
# make dist            the wheel, and the one file for guests, in dist/
# make deb             the Debian packages, in dist/, looked at by lintian
# make bytecode        compiles the BPF programs for each machine, in a guest
# make clean           what was installed into this checkout

VENV = .venv/bin
# Where `make demo` leaves the recordings.
DEMO = demo
DIST = dist

# Tests that share a guest stay together; a guest of two CPUs fills a small machine. What is quick
# comes last, and fills the gaps.
PYTEST = $(VENV)/pytest --numprocesses 2 --dist loadgroup

.PHONY: help bytecode deb dist golden setup demo test check test-vagrant tests essentials lint bench bench-emulator torture soak bench-footprint bench-smallest bench-memory bench-report bench-inflate bench-live bench-watch bench-fleet check-perfetto docs support lock audit fuzz clean

setup:
	@tools/setup

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: setup
	@$(VENV)/balloontrace lab run page-cache --driver stock,shrinker --out $(DEMO)
	@$(VENV)/balloontrace compare $(DEMO)/page-cache-shrinker.btrace $(DEMO)/page-cache-stock.btrace

lint: setup
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy

test:
	@tools/setup vagrant packages
	@$(MAKE) --no-print-directory --jobs 2 lint tests

check: setup
	@$(MAKE) --no-print-directory --jobs 2 lint essentials

tests:
	@$(PYTEST) tests/guest tests/vagrant tests/unit

essentials:
	@$(PYTEST) tests/unit tests/guest/test_seams.py --kernel 6.1 --ignore tests/unit/fleet/test_thousands.py

test-vagrant:
	@tools/setup vagrant
	@$(VENV)/pytest tests/vagrant

# A budget that is missed leaves the others to be measured.
bench: setup
	@failed=0; \
	for one in overhead counters "footprint --one-file" smallest; do \
		$(VENV)/python -m bench.$$one || failed=1; \
	done; \
	exit $$failed

torture: setup
	@$(VENV)/python -m tests.stress.torture

soak: setup
	@$(VENV)/python -m tests.stress.soak

bench-footprint: setup
	@$(VENV)/python -m bench.footprint

# Which QEMU kills its guests, and how fast it is. Another one: PATH=/its/usr/bin:$PATH make ...
bench-emulator: setup
	@$(VENV)/python -m bench.emulator

bench-smallest: setup
	@$(VENV)/python -m bench.smallest

bench-memory: setup
	@$(VENV)/python -m bench.memory

bench-inflate: setup
	@$(VENV)/python -m bench.inflate

bench-live: setup
	@$(VENV)/python -m bench.live

bench-watch: setup
	@$(VENV)/python -m bench.watch

bench-fleet: setup
	@$(VENV)/python -m bench.fleet

bench-report: setup
	@$(VENV)/python -m bench.report

# Loads Perfetto exports into Perfetto's own trace processor. Needs node and npm.
check-perfetto: setup
	@$(VENV)/python -m tests.stress.trace_processor

# The versions that were tested together, for development.
# What reports of the recordings in tests/data say. Read the difference before you commit it.
golden: setup
	@$(VENV)/python -m tests.unit.golden

lock: setup
	@$(VENV)/pip freeze --exclude-editable > tools/dev.lock

# Asks PyPI for known vulnerabilities of them.
audit: setup
	@$(VENV)/pip install --quiet pip-audit
	@$(VENV)/pip-audit --requirement tools/dev.lock --no-deps --disable-pip

# Ten minutes of hostile recordings. Not in CI: what it finds depends on chance.
fuzz: setup
	@$(VENV)/pip install --quiet atheris
	@$(VENV)/python -m tests.stress.fuzz -max_total_time=600 -timeout=60 -rss_limit_mb=1024 \
		-max_len=512 -len_control=0

docs: setup
	@$(VENV)/python -c 'from balloontrace import events; print(events.markdown(), end="")' \
		> docs/events.md
	@$(VENV)/python -c 'from balloontrace.watch import metrics; print(metrics.markdown(), end="")' \
		> docs/metrics.md
	@$(VENV)/python -c 'from balloontrace.analysis import json_schema as j; print(j.markdown(), end="")' \
		> docs/report-json.md
	@$(VENV)/python -c 'from balloontrace.analysis import json_schema as j; print(j.schema_text(), end="")' \
		> docs/report.schema.json
	@$(VENV)/python -m tools.share
	@$(VENV)/python -m tools.prometheus

# Runs a guest of each kernel; rewrites docs/support.md, docs/doctor/ and the fixtures of the tests.
support: setup
	@$(VENV)/python -m tools.support

dist: setup
	@$(VENV)/pip wheel --quiet --no-deps --wheel-dir $(DIST) .
	@$(VENV)/balloontrace bundle --force --output $(DIST)/balloontrace-record.pyz

deb:
	@tools/setup packages
	@$(VENV)/python -m tools.packages $(DIST)

bytecode: setup
	@$(VENV)/python -m tools.bytecode

clean:
	rm -rf .venv $(DEMO) $(DIST) build
