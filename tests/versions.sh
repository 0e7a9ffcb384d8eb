#!/usr/bin/env bash
# Runs tests with the lowest versions that pyproject.toml allows, or with the newest there are, of all that is installed.
#
#   tests/versions.sh lowest|newest [PYTEST'S ARGUMENTS]
#
# The lowest on Python 3.10, the newest on 3.13, as they are found here (on the PATH, or in pyenv's folder); where there is
# none, this is said and nothing runs. PYTHON names another interpreter. AS_OF=2026-11-27 takes the newest of that day.
# With OPTIONAL=1 what cannot be installed (an index that is out of reach, or does not tell days) is said, and no failure.
# The environment, .venv-lowest or .venv-newest, has neither torch nor Ray: tests that need them are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
what=$1
shift
case $what in
  lowest) version=3.10; how=(--resolution lowest-direct) ;;
  newest) version=3.13; how=(--upgrade ${AS_OF:+--exclude-newer "$AS_OF"}) ;;
  *) echo "lowest or newest, not $what" >&2; exit 2 ;;
esac

find_python() {
  for each in ${PYTHON:-} "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
    if "$each" -c "import venv" 2> /dev/null; then echo "$each"; return; fi
  done
}
python=$(find_python)
if [ -z "$python" ]; then
  echo "no Python $version here: the $what versions were not tried (PYTHON=... names an interpreter)"
  exit 0
fi

here=.venv-$what stamp=".venv-$what/made-$(cat pyproject.toml tests/versions.sh - <<< "${AS_OF:-}" | cksum | cut -d' ' -f1)"
if [ ! -e "$stamp" ] || [ "$what${AS_OF:-}" = newest ]; then
  [ -e "$stamp" ] || rm -rf "$here"
  [ -e "$here" ] || { "$python" -m venv "$here" && "$here/bin/pip" install -q uv; }
  links=${PIP_FIND_LINKS:-$("$here/bin/pip" config get global.find-links 2> /dev/null || true)}
  index=${PIP_INDEX_URL:-$("$here/bin/pip" config get global.index-url 2> /dev/null || true)}
  UV_HTTP_TIMEOUT=180 "$here/bin/uv" pip install -q --system-certs --python "$here" ${links:+--find-links "$links"} \
    ${index:+--default-index "$index"} "${how[@]}" -e ".[otel,plot,runs,tasks,test]" "dspy>=3.4" || {
    [ -n "${OPTIONAL:-}" ] || exit 1
    echo "the $what versions cannot be installed here, see above: they were not tried"
    exit 0
  }
  touch "$stamp"
fi

"$here/bin/python" --version
"$here/bin/uv" pip list -q --python "$here" --format freeze |
  grep -E '^(dspy|langchain-core|langchain|langgraph|litellm|openai|httpx|pydantic)==' | paste -sd' '
exec "$here/bin/python" -m pytest -p no:cacheprovider "$@"
