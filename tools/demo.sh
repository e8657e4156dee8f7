#!/usr/bin/env bash
# bash tools/demo.sh [FOLDER] [--control] [--seeds K] [--set KEY=VALUE]…: installs what is pinned, trains a teacher of real digits,
# distils it into a few-step mixture student, compares the two, and ends with a table and FOLDER/report/report.html (FOLDER:
# runs/demo). --control: also trains the same student with one component. Run again, it continues where it was interrupted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/install.sh

processes=$(($(python -c 'import os; print(len(os.sched_getaffinity(0)))') >= 2 ? 2 : 1))
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export OMP_NUM_THREADS=1 # one thread a process: two processes share two cores best so
deepspeed --log_level warning --num_accelerators "$processes" --master_port "$port" tools/demo.py "$@"

folder=runs/demo
case "${1:-}" in "" | --*) ;; *) folder="$1" ;; esac
printf 'Next: di4c sample --run %s/student --steps 1 --num 64 --out digits.png   (after: source tools/install.sh)\n' "$folder"
printf '      a student of your own data: docs/getting-started.md\n'
