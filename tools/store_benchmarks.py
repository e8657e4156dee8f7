"""Runs the benchmarks that the README shows and stores them: python tools/store_benchmarks.py [NAME…] [--device cuda]

Each is one call of tools/bench.py; tools/results/bench.json (bench-cuda.json on a GPU) keeps the others' last results.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
LOSS = "loss --components {m} --positions {d} --states 50258 --width 768"
DIGITS = "step --batch 8 --width 64 --depth 3 --heads 4 --mlp-ratio 2 --positions 64 --states 18 --targets 16 --late-blocks 1 --only late"
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
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="all if none is given")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", default="2", help="fresh processes an implementation")
    parser.add_argument("--repeats", default="2", help="timed runs a process")
    arguments = parser.parse_args()
    file = TOP / "tools/results" / ("bench.json" if arguments.device == "cpu" else f"bench-{arguments.device}.json")
    for name in arguments.names or BENCHMARKS:
        command = [sys.executable, "tools/bench.py", *BENCHMARKS[name].split(), "--device", arguments.device]
        command += ["--rounds", arguments.rounds, "--repeats", arguments.repeats]
        done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True, check=True)
        stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        stored[name] = {"command": f"python tools/bench.py {BENCHMARKS[name]}", **json.loads(done.stdout)}
        stored = {key: stored[key] for key in BENCHMARKS if key in stored}
        file.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: stored in {file.relative_to(TOP)}", flush=True)


if __name__ == "__main__":
    main()
