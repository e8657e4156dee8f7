#!/usr/bin/env bash
# bash tools/demo.sh [--control] [FOLDER]: installs what is pinned, trains a teacher of real digits, distils it into a few-step
# mixture student, compares the two, and ends with a table and FOLDER/report/report.html (FOLDER: runs/demo).
# --control: also trains the same student with one component, for comparison. Run again, it continues where it was interrupted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/install.sh

control=false
if [ "${1:-}" = "--control" ]; then
    control=true
    shift
fi
folder="${1:-runs/demo}"
processes=$(($(python -c 'import os; print(len(os.sched_getaffinity(0)))') >= 2 ? 2 : 1))
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export OMP_NUM_THREADS=1 # one thread a process: two processes share two cores best so
begin=$SECONDS

say() { printf '\n[%d:%02d] %s\n' $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60)) "$*"; }
launch() { deepspeed --log_level warning --num_accelerators "$processes" --master_port "$port" "$@"; }
train() { launch tools/train.py --resume --spec "$@"; }

say "Teacher: a masked-diffusion transformer of scikit-learn's digits, $processes processes under DeepSpeed"
train tools/specs/digits-teacher.yaml --set train.run="$folder/teacher"
say "Student: a mixture of 32 product models, distilled from the teacher"
train tools/specs/digits-student.yaml --set train.run="$folder/student" --set teacher.run="$folder/teacher"
also=()
if $control; then
    say "Control: the same student with one component, the same budget"
    train tools/specs/digits-one-component.yaml --set train.run="$folder/one-component" --set teacher.run="$folder/teacher"
    also=(--also one-component="$folder/one-component")
fi
say "Evaluation: 1, 2, 4 and 8 steps, 3 seeds"
launch tools/eval.py --run "$folder/student" ${also[@]+"${also[@]}"} --out "$folder/report"
say "Done: $folder/report/report.html"
printf 'Next: python tools/sample.py --run %s/student --steps 1 --num 64 --out digits.png\n' "$folder"
printf '      a student of your own data: docs/getting-started.md\n'
