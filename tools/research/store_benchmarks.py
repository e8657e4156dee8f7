"""Runs the benchmarks that docs/performance.md shows, on a CPU, and stores them: python tools/research/store_benchmarks.py [NAME…]

Each is one call of tools/bench.py; tools/results/bench.json keeps the others' last results. What tools/gpu_check.sh has measured on
a GPU is stored by `python tools/research/store_benchmarks.py --gpu-check FOLDER`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LOSS = "loss --components {m} --positions {d} --states 50258 --width 768"
DIGITS = "step --batch 8 --width 64 --depth 3 --heads 4 --mlp-ratio 2 --positions 64 --states 18 --targets 16 --late-blocks 1 --only late"
LETTERS = "step --width 64 --depth 3 --heads 4 --mlp-ratio 3 --states 29 --batch 512 --components 128 --enumerate --data-only --time 1"
BENCHMARKS = {
    "loss": LOSS.format(m=16, d=256),
    "loss, 2M": LOSS.format(m=32, d=256) + " --only project",
    "loss, 2D": LOSS.format(m=16, d=512) + " --only project",
    "step, S = 1025": "step --states 1025 --only late token",
    "step, S = 50258": "step --states 50258 --only late token",
    "step, recomputing": "step --states 50258 --recompute --only token plain",
    "sample": "sample",
    "digits, M = 16": f"{DIGITS} --components 16",
    "digits, M = 64": f"{DIGITS} --components 64",
    "equal inputs, D = 16": f"{LETTERS} --positions 16 --rank 32 --only readout each",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="all if none is given")
    parser.add_argument(
        "--gpu-check", type=Path, help="store FOLDER/bench.json of tools/gpu_check.sh and measure nothing"
    )
    arguments = parser.parse_args()
    if arguments.gpu_check:
        return store_gpu_check(arguments.gpu_check)
    file = TOP / "tools/results/bench.json"
    for name in arguments.names or BENCHMARKS:
        command = [sys.executable, "tools/bench.py", *BENCHMARKS[name].split(), "--rounds", "2"]
        done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True, check=True)
        stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        stored[name] = {"command": f"python tools/bench.py {BENCHMARKS[name]}", **json.loads(done.stdout)}
        stored = {key: stored[key] for key in BENCHMARKS if key in stored}
        file.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: stored in {file.relative_to(TOP)}", flush=True)


def store_gpu_check(folder: Path) -> None:
    """Keeps what a GPU has measured for docs/performance.md; a run on a CPU, or one with changed files, is no result."""
    content = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    commands = [result["command"] for result in content["results"].values()]
    if not commands or not all("--device cuda" in command for command in commands):
        raise SystemExit(f"error: {folder}/bench.json was not measured on a GPU")
    if content["machine"]["commit"].endswith("-dirty") or content["machine"]["commit"] == "unknown":
        raise SystemExit(
            f"error: {folder}/bench.json does not say of which commit it is: {content['machine']['commit']}; set DI4C_COMMIT"
        )
    (TOP / "tools/results/gpu-bench.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
