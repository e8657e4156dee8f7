#!/usr/bin/env bash
# bash tools/test.sh [--slow] [pytest's arguments]: installs what is pinned, then runs the tests (--slow: all of them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

selection=(-m "not slow")
if [ "${1:-}" = "--slow" ]; then
    selection=()
    shift
fi

source tools/install.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # tests are small, and some start two ranks on two cores
exec python -m pytest "${selection[@]}" "$@"
