# Each target makes its own environment; PYTHON picks the interpreter (3.10 to 3.13).
PYTHON ?= python3
export LITELLM_LOCAL_MODEL_COST_MAP = True
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# What one process of the tests has compiled, the next need not compile.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test one-half other-half browser lint versions hosts-lowest hosts-newest lowest newest lowest-hf newest-hf audit docs bench torture clean

# The reward counts what a reader can check by eye; `make demo REWARD=judge` has the model judge itself.
REWARD ?= recipes/table.py:checks
QUERY ?= How do I take care of a wooden table?
# So small a model follows its critic in two of the seeds 1 to 4; this is one of the two. `make demo SEED=1` is another.
SEED ?= 4
demo: .venv-demo/done
	.venv-demo/bin/tpo ask "$(QUERY)" --reward $(REWARD) --seed $(SEED) --deadline 300

# Two halves beside each other, for two cores, and what comes after them where the first has ended; `pytest` alone runs all
# of the halves, one after the other.
HALF = $(addprefix tests/core/,cli drivers loop models prompts report studies test_notebook.py) tests/dspy

test: .venv/done browser lint
	$(MAKE) --no-print-directory -j2 --output-sync=target one-half other-half hosts-lowest hosts-newest

one-half:
	.venv/bin/python -m pytest -p no:cacheprovider $(HALF)

other-half:
	.venv/bin/python -m pytest -p no:cacheprovider $(addprefix --ignore=,$(HALF))

# The tests that touch the hosts most, with the lowest versions that are allowed and with the newest ones of a day on
# which `make newest` passed: what is new since then does not fail a change that has nothing to do with it.
HOSTS = tests/dspy/test_tpo.py tests/langchain/test_runnable.py tests/core/models/test_served.py tests/core/test_masking.py
AS_OF = 2026-11-27

versions:
	$(MAKE) --no-print-directory -j2 --output-sync=target hosts-lowest hosts-newest

hosts-lowest:
	OPTIONAL=1 tests/versions.sh lowest -q $(HOSTS)

hosts-newest:
	OPTIONAL=1 AS_OF=$(AS_OF) tests/versions.sh newest -q $(HOSTS)

# All tests that need neither torch nor Ray, with the lowest versions, and with the newest there are today: run weekly.
ALL = tests/dspy tests/langchain tests/litellm tests/otel tests/core/drivers tests/core/loop tests/core/models \
  tests/core/prompts tests/core/runs tests/core/test_injection.py tests/core/test_masking.py

lowest newest:
	tests/versions.sh $@ $(ALL)

# Those of reward models from checkpoints, with the lowest and the newest transformers and a CPU build of torch (200 MB).
lowest-hf newest-hf:
	tests/versions.sh $@ tests/core/rewards/hf

# Looks up every installed package in PyPI's advisories. --strict: what cannot be looked up is a failure.
audit: .venv/done
	.venv/bin/uv pip list -q --python .venv --exclude-editable --format freeze | sed 's/+.*//' > .venv/audited.txt
	.venv/bin/uv tool run --system-certs pip-audit -r .venv/audited.txt --no-deps --disable-pip --strict

# Tests look at the pages of reports in a Chromium. Where this is a container's root with apt, it is fetched; elsewhere
# it is yours to install, and without it those tests are skipped.
browser:
	@if command -v chromedriver > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver) > /dev/null \
	  || echo "Chromium could not be installed: tests that need it are skipped"; \
	else echo "no Chromium: tests that need it are skipped (apt-get install chromium chromium-driver)"; fi

lint: .venv/done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: .venv-docs/done
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

bench: .venv/done
	.venv/bin/python benchmarks/rewards.py

# Tries to break it: a table of what was tried, and how often it failed. SHARE=0.01 is a hundredth of it; OUT=FILE.md
# keeps the table, and PNG=FILE.png what the soak measured.
SHARE ?= 1
torture: .venv/done
	.venv/bin/python tests/torture --share $(SHARE) $(if $(OUT),--output $(OUT)) $(if $(PNG),--png $(PNG))

.venv-demo/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/pip install -q -c constraints.txt -e ".[local]"
	touch $@

# uv installs the many packages of the tests in a third of pip's time. It reads none of pip's settings: these two are
# told to it, and where it cannot go on pip does it.
.venv/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q uv
	links="$${PIP_FIND_LINKS:-$$(.venv/bin/pip config get global.find-links 2> /dev/null)}"; \
	index="$${PIP_INDEX_URL:-$$(.venv/bin/pip config get global.index-url 2> /dev/null)}"; \
	UV_HTTP_TIMEOUT=180 .venv/bin/uv pip install -q --system-certs --python .venv $${links:+--find-links "$$links"} \
	$${index:+--default-index "$$index"} -c constraints.txt -e ".[dev]" \
	|| .venv/bin/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

# The reference is made from the source as it stands: nothing of it needs to be installed.
.venv-docs/done: constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install -q -c constraints.txt mkdocs-material mkdocstrings-python
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-docs .venv-lowest* .venv-newest* site .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
