"""One part of tools/gpu_check.sh, or its verdict: python tools/research/gpu_check.py tests|bench|train FOLDER [--cpu]; … verdict FOLDER PART…"""

import argparse
import importlib
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tools" / "research"), str(TOP / "tools"), str(TOP)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["tests", "bench", "train", "verdict"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", help="what the verdict is about")
    parser.add_argument("--cpu", action="store_true", help="at tiny size on the CPU")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.part == "verdict":
        from gpu_checks.verdict import verdict

        line, well = verdict(folder, tuple(arguments.parts))
        print(line)
        return 0 if well else 1
    module = "training" if arguments.part == "train" else arguments.part
    importlib.import_module(f"gpu_checks.{module}").run(folder, cpu=arguments.cpu)
    return 0


if __name__ == "__main__":
    sys.exit(main())
