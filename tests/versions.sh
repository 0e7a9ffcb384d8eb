#!/usr/bin/env bash
# Runs tests with the lowest versions that pyproject.toml allows, or with the newest there are, of all that is installed.
#
#   tests/versions.sh lowest|newest|lowest-hf|newest-hf [PYTEST'S ARGUMENTS]
#
# The lowest on Python 3.10, the newest on 3.13, as they are found here (on the PATH, or in pyenv's folder); where there is
# none, this is said and nothing runs. PYTHON names another interpreter. AS_OF=2026-11-27 takes the newest of that day.
# With OPTIONAL=1 what cannot be installed (an index that is out of reach, or does not tell days) is said, and no failure.
# The environment, .venv-lowest or .venv-newest, has neither torch nor Ray: tests that need them are left out. Those named
# -hf have transformers, with a CPU build of torch (TORCH names another), and take Python 3.11 where it has none for theirs.
set -euo pipefail
cd "$(dirname "$0")/.."
what=$1
shift
case $what in
  lowest*) versions=3.10 how=(--resolution lowest-direct) ;;
  newest*) versions=3.13 how=(--upgrade ${AS_OF:+--exclude-newer "$AS_OF"}) ;;
esac
case $what in
  lowest | newest) wanted=(-e ".[otel,plot,runs,tasks,test]" "dspy>=3.4") ;;
  lowest-hf | newest-hf) wanted=(-e ".[hf,test]" "torch==${TORCH:-2.13.0+cpu}") versions+=" 3.11" ;;
  *) echo "lowest, newest, lowest-hf or newest-hf, not $what" >&2; exit 2 ;;
esac

find_python() { # VERSION
  for each in ${PYTHON:-} "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if "$each" -c "import venv" 2> /dev/null; then echo "$each"; return; fi
  done
}

install() { # INTERPRETER: an environment is made once, and brought up to date where the newest is wanted
  if [ -e "$stamp" ] && [[ "$what${AS_OF:-}" != newest* || -n "${AS_OF:-}" ]]; then return; fi
  [ -e "$stamp" ] || rm -rf "$here"
  [ -e "$here" ] || { "$1" -m venv "$here" && "$here/bin/pip" install -q uv; } || return
  links=${PIP_FIND_LINKS:-$("$here/bin/pip" config get global.find-links 2> /dev/null || true)}
  index=${PIP_INDEX_URL:-$("$here/bin/pip" config get global.index-url 2> /dev/null || true)}
  UV_HTTP_TIMEOUT=180 "$here/bin/uv" pip install -q --system-certs --python "$here" ${links:+--find-links "$links"} \
    ${index:+--default-index "$index"} "${how[@]}" "${wanted[@]}" && touch "$stamp"
}

here=.venv-$what stamp=".venv-$what/made-$(cat pyproject.toml tests/versions.sh - <<< "${AS_OF:-}${TORCH:-}" | cksum | cut -d' ' -f1)"
found=
for version in $versions; do
  python=$(find_python "$version")
  if [ -z "$python" ]; then
    echo "no Python $version here (PYTHON=... names an interpreter)"
  elif install "$python"; then
    found=yes
    break
  else
    echo "the $what versions cannot be installed here on Python $version, see above"
    failed=yes
  fi
done
if [ -z "$found" ]; then
  echo "the $what versions were not tried"
  if [ -z "${failed:-}" ] || [ -n "${OPTIONAL:-}" ]; then exit 0; else exit 1; fi
fi

"$here/bin/python" --version
"$here/bin/uv" pip list -q --python "$here" --format freeze |
  grep -E '^(dspy|langchain-core|langchain|langgraph|litellm|openai|httpx|pydantic|safetensors|torch|transformers)==' | paste -sd' '
exec "$here/bin/python" -m pytest -p no:cacheprovider "$@"
