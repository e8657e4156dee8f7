#!/usr/bin/env bash
# bash tools/research/lowest_versions.sh [pytest's arguments]: the tests with the lowest version that pyproject.toml allows of everything.
# They get an environment of their own, .cache/lowest (2 GB; LOWEST names another place); the result goes to
# tools/results/lowest-versions.json. TORCH=2.11.0 chooses torch: only the pinned version is surely there as a build for CPUs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source <(sed -n '/^find_python()/,/^}/p' tools/install.sh)

folder="${LOWEST:-.cache/lowest}"
pinned() { sed -n "s/^$1==//p" tools/constraints.txt; }
torch="${TORCH:-$(pinned torch)}"
[ -x "$folder/bin/python" ] || "$(find_python)" -m venv "$folder"
export PATH="$PWD/$folder/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1
if [[ "$folder" = /* ]]; then export PATH="$folder/bin:$PATH"; fi
unset VIRTUAL_ENV CONDA_PREFIX PYTHONPATH

lowest="$(python - <<'PY'
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = [name for extra, names in project["optional-dependencies"].items() if extra != "docs" for name in names]
found = (re.match(r"([\w-]+)>=([\w.]+)", line).groups() for line in project["dependencies"] + extras)
print("\n".join(f"{name}=={version}" for name, version in found if name not in ("torch", "timm")))
PY
)"
timm="timm==$(sed -n 's/^ *"timm>=\([0-9.]*\),.*/\1/p' pyproject.toml)"
python -m pip install --quiet "torch==$torch" $(grep -E '^(setuptools|numpy)==' <<<"$lowest") wheel ninja py-cpuinfo
python -m pip install --quiet --no-build-isolation "torch==$torch" $lowest
python -m pip install --quiet --no-deps "$timm" "torchvision==$(pinned torchvision)"
python -m pip install --quiet --no-deps --no-build-isolation -e .

if [ $# -eq 0 ]; then set -- -m "not slow"; fi
log="$(mktemp)"
failed=0
python -m pytest -q -p no:cacheprovider "$@" 2>&1 | tee "$log" || failed=$?
python tools/research/record_versions.py "$log" tools/results/lowest-versions.json "$@"
rm "$log"
exit $failed
