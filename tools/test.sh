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
# The kernels are tested by Triton's interpreter: 200 MB, which a CUDA build of torch brings along. Without it their tests are skipped.
python -c 'import triton' 2>/dev/null || python -m pip install --quiet --no-deps "triton>=3.7,<3.8" ||
    echo "Triton cannot be installed here: the kernels' tests are skipped" >&2
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # tests are small, and some start two ranks on two cores
exec python -m pytest "${selection[@]}" "$@"
