# Each target makes its own environment; PYTHON picks the interpreter (3.10 to 3.13).
PYTHON ?= python3
export LITELLM_LOCAL_MODEL_COST_MAP = True
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# What one process of the tests has compiled, the next need not compile.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test one-half other-half browser lint docs bench torture clean

# The reward counts what a reader can check by eye; `make demo REWARD=judge` has the model judge itself.
REWARD ?= recipes/table.py:checks
QUERY ?= How do I take care of a wooden table?
# So small a model follows its critic in two of the seeds 1 to 4; this is one of the two. `make demo SEED=1` is another.
SEED ?= 4
demo: .venv-demo/done
	.venv-demo/bin/tpo ask "$(QUERY)" --reward $(REWARD) --seed $(SEED) --deadline 300

# Two halves beside each other, for two cores; `pytest` alone runs all, one after the other.
HALF = $(addprefix tests/core/,cli drivers loop models prompts report studies test_notebook.py) tests/dspy

test: .venv/done browser lint
	$(MAKE) --no-print-directory -j2 --output-sync=target one-half other-half

one-half:
	.venv/bin/python -m pytest -p no:cacheprovider $(HALF)

other-half:
	.venv/bin/python -m pytest -p no:cacheprovider $(addprefix --ignore=,$(HALF))

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
	rm -rf .venv .venv-demo .venv-docs site .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
