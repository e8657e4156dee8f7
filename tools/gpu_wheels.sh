#!/usr/bin/env bash
# bash tools/gpu_wheels.sh FOLDER [PYTHON_VERSION]: collects, where there is a registry, what a GPU machine without network lacks:
# one with Python 3.12 (or PYTHON_VERSION), torch, Triton, transformers, peft, timm, scikit-learn and matplotlib. tools/gpu_setup.sh
# installs them there. Needs torch in the active environment, with which DeepSpeed's wheel (pure Python) is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder="$(mkdir -p "$1" && cd "$1" && pwd)"
version="${2:-3.12}"

pinned() { grep "^$1==" tools/constraints.txt; }

python -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest "$folder" \
    "$(pinned omegaconf)" "$(pinned datasets)" "$(pinned einops)" "$(pinned hypothesis)" "$(pinned pytest)" \
    "dill>=0.3.8,<0.4.2" "multiprocess<0.70.20" pydantic==2.14.4 pydantic-core==2.50.5 typing-inspection annotated-types hjson py-cpuinfo
python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$folder" "$(pinned deepspeed)"
ls -l "$folder"
