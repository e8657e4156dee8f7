#!/usr/bin/env bash
# bash tools/test.sh [--slow] [--no-install] [pytest's arguments]: installs what is pinned, then runs the tests, and those of a GPU
# where there is one. --slow: the slow ones too. --no-install: in the active environment as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

slow="" install=yes
while [ $# -gt 0 ]; do
    case "$1" in
        --slow) slow=yes ;;
        --no-install) install="" ;;
        *) break ;;
    esac
    shift
done

if [ "$install" ]; then
    source tools/install.sh
    python=python
    # The kernels are tested by Triton's interpreter: 200 MB, which a CUDA build of torch brings along. Without it their tests are skipped.
    python -c 'import triton' 2>/dev/null || python -m pip install --quiet --no-deps "triton>=3.7,<3.8" ||
        echo "Triton cannot be installed here: the kernels' tests are skipped" >&2
else
    python="$(command -v python || command -v python3)"
    mkdir -p build/importable # no installation links the plugins' folder to the name they are imported by
    ln -sfn "$PWD/plugins" build/importable/di4c_plugins
    export PYTHONPATH="$PWD:$PWD/build/importable${PYTHONPATH:+:$PYTHONPATH}"
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # tests are small, and some start two ranks on two cores

failed=0 processes=1
selection=() gpu_selection=(-m gpu)
if [ ! "$slow" ]; then
    selection=(-m "not slow") gpu_selection=(-m "gpu and not slow")
    # A process a core, at most four, each with the files that it claims (tests/claims.py). The slow tests train large networks, which
    # are to have the memory to themselves.
    processes="$("$python" -c 'import os; print(min(4, len(os.sched_getaffinity(0))))')"
fi
claims="$(mktemp -d)"
trap 'rm -rf "$claims"' EXIT
others=()
for ((place = 1; place < processes; place++)); do # their output follows when they end
    mkdir -p "$claims/of"
    TEST_CLAIMS="$claims/of" TEST_PLACE="$place/$processes" "$python" -m pytest "${selection[@]}" "$@" >"$claims/$place.log" 2>&1 &
    others+=($!)
done
if [ "$processes" -gt 1 ]; then
    mkdir -p "$claims/of"
    export TEST_CLAIMS="$claims/of" TEST_PLACE="0/$processes"
fi
"$python" -m pytest "${selection[@]}" "$@" || failed=$?
unset TEST_CLAIMS TEST_PLACE
for ((place = 1; place < processes; place++)); do
    wait "${others[place - 1]}" || { status=$? && [ $status -eq 5 ] || failed=$status; } # 5: the other processes took all
    cat "$claims/$place.log"
done
# The tests above hide a GPU from themselves (tests/devices.py), so those of a GPU need a process of their own.
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    "$python" -m pytest "${gpu_selection[@]}" "$@" || { status=$? && [ $status -eq 5 ] || failed=$status; } # 5: none selected
fi
exit $failed
