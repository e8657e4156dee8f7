#!/usr/bin/env bash
# bash tools/gpu_check.sh [FOLDER] [tests|bench|train] [--cpu] [--wheels WHEELS]
# Checks this checkout on one GPU in at most 6 minutes, without network, in the active environment (torch ≥ 2.11, Triton ≥ 3.6, and the
# other dependencies or --wheels, see tools/gpu_wheels.sh): the tests of tests/gpu, the benchmarks with their limits, a small training
# with a kill. FOLDER (runs/gpu-check) gets a JSON file a part; the last line is the verdict, and the exit status says the same.
# --cpu: all of it at tiny size on the CPU, for which no limit counts.
set -uo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
folder="$PWD/runs/gpu-check" parts=() cpu=() wheels=""
while [ $# -gt 0 ]; do
    case "$1" in
        tests | bench | train) parts+=("$1") ;;
        --cpu) cpu=(--cpu) ;;
        --wheels) wheels="$(cd "$2" && pwd)" && shift || exit 2 ;;
        -*) echo "error: unknown option $1; known: --cpu, --wheels WHEELS" >&2 && exit 2 ;;
        *) folder="$(realpath -m "$1")" ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=(bench train tests)

cd "$top"
source tools/gpu_setup.sh "$wheels" || exit 2
python="$(command -v python || command -v python3)"
if [ ${#cpu[@]} -gt 0 ]; then # as tests/devices.py hides a GPU from the tests of the CPU
    export CUDA_VISIBLE_DEVICES="" DS_ACCELERATOR=cpu TRITON_INTERPRET=1
else
    unset TRITON_INTERPRET
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
        { echo "error: torch sees no CUDA device; --cpu checks at tiny size without one" >&2 && exit 2; }
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
mkdir -p "$folder"

declare -i each=150 in_all=360 # seconds
[ ${#cpu[@]} -eq 0 ] || each=300 in_all=900
for part in "${parts[@]}"; do
    rm -rf "$folder/$part" "$folder/$part.json"
    begin=$SECONDS limit=$((in_all - SECONDS < each ? in_all - SECONDS : each))
    timeout --kill-after 5 "$limit" "$python" tools/research/gpu_check.py "$part" "$folder" "${cpu[@]}" >"$folder/$part.log" 2>&1
    status=$?
    [ $status -eq 0 ] || tail -n 15 "$folder/$part.log"
    [ $status -ne 124 ] || echo "$part: stopped after $limit seconds"
    echo "$part: $((SECONDS - begin)) seconds, exit code $status; $folder/$part.json, $folder/$part.log"
done
"$python" tools/research/gpu_check.py verdict "$folder" "${parts[@]}"
