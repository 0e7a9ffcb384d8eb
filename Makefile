# Each target makes its own environment; PYTHON picks the interpreter (3.10 to 3.13).
PYTHON ?= python3
export LITELLM_LOCAL_MODEL_COST_MAP = True
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint bench clean

demo: .venv-demo/done
	.venv-demo/bin/tpo ask "How do I take care of a wooden table?"

test: .venv/done lint
	.venv/bin/python -m pytest

lint: .venv/done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/done
	.venv/bin/python benchmarks/rewards.py

.venv-demo/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/pip install -q -c constraints.txt -e ".[local]"
	touch $@

.venv/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv .venv-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
