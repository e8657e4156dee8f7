#!/usr/bin/env bash
# bash tools/lint.sh [--fix]: format, lint and types of the whole tree, by what the extra `lint` of pyproject.toml pins. What is not in
# the active environment is installed into build/lint; where no package index can be reached, the step says that it is skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="$(command -v .venv/bin/python || command -v python || command -v python3)"
[ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || python="$(command -v python)"
mapfile -t wanted < <("$python" - <<'PY'
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["lint"]))
PY
)
export PYTHONPATH="$PWD/build/lint"
missing() { # the pins that the environment does not hold
    "$python" - "${wanted[@]}" <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, version
for pin in sys.argv[1:]:
    name, _, wanted = pin.partition("==")
    try:
        found = version(name)
    except PackageNotFoundError:
        found = None
    if found != wanted:
        print(pin)
PY
}
mapfile -t absent < <(missing)
if [ "${#absent[@]}" -gt 0 ] && ! "$python" -m pip install --quiet --retries 0 --timeout 15 --upgrade --target build/lint "${absent[@]}"; then
    echo "lint: skipped, since ${absent[*]} cannot be installed here" >&2
    exit 0
fi

failed=0
if [ "${1:-}" = "--fix" ]; then
    "$python" -m ruff check --fix . || true
    "$python" -m ruff format .
fi
"$python" -m ruff check . || failed=1
"$python" -m ruff format --check . || failed=1
"$python" -m mypy || failed=1
exit $failed
