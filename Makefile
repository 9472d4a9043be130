# make demo   the founding experiment in two real guests, ends with the table
# make test   lint, types, unit tests, and the tests in real guests
# make test-vagrant   the Vagrant lab in a libvirt of its own; part of make test

VENV = .venv/bin
# Where `make demo` leaves the recordings.
DEMO = demo

.PHONY: setup demo test test-vagrant lint bench torture soak bench-footprint bench-report bench-inflate check-perfetto docs support lock audit fuzz clean

setup:
	@tools/setup

demo: setup
	@$(VENV)/balloontrace lab run page-cache --driver stock,shrinker --out $(DEMO)
	@$(VENV)/balloontrace compare $(DEMO)/page-cache-shrinker.btrace $(DEMO)/page-cache-stock.btrace

lint: setup
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy

test: lint
	@$(VENV)/pytest --numprocesses 2 --dist loadgroup
	@$(MAKE) --no-print-directory test-vagrant

test-vagrant:
	@tools/setup vagrant
	@$(VENV)/pytest tests/vagrant

bench: setup
	@$(VENV)/python -m bench.overhead

torture: setup
	@$(VENV)/python -m bench.torture

soak: setup
	@$(VENV)/python -m bench.soak

bench-footprint: setup
	@$(VENV)/python -m bench.footprint

bench-inflate: setup
	@$(VENV)/python -m bench.inflate

bench-report: setup
	@$(VENV)/python -m bench.report

# Loads Perfetto exports into Perfetto's own trace processor. Needs node and npm.
check-perfetto: setup
	@$(VENV)/python -m bench.trace_processor

# The versions that were tested together, for development.
lock: setup
	@$(VENV)/pip freeze --exclude-editable > tools/dev.lock

# Asks PyPI for known vulnerabilities of them.
audit: setup
	@$(VENV)/pip install --quiet pip-audit
	@$(VENV)/pip-audit --requirement tools/dev.lock --no-deps --disable-pip

# Ten minutes of hostile recordings. Not in CI: what it finds depends on chance.
fuzz: setup
	@$(VENV)/pip install --quiet atheris
	@$(VENV)/python -m bench.fuzz -max_total_time=600 -timeout=20 -rss_limit_mb=2048

docs: setup
	@$(VENV)/python -c 'from balloontrace import events; print(events.markdown(), end="")' \
		> docs/events.md

# Runs a guest of each kernel; rewrites docs/support.md, docs/doctor/ and the fixtures of the tests.
support: setup
	@$(VENV)/python -m bench.support

clean:
	rm -rf .venv $(DEMO)
