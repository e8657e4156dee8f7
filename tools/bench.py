"""Measures this project against a plain implementation: `python tools/bench.py loss`, `step`, `sample`; prints one JSON object.

Every measurement runs in a fresh process, the two implementations in turn. Peak memory is counted above what the process
holds before the work begins. The plain implementation is the oracle of the tests (tests/oracle/plain.py).
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

SUBJECTS = ("loss", "step", "sample")


def main() -> int:
    arguments = _parser().parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch

    from benchmarks.measure import alternating, machine, measured, ratio, summary

    torch.set_num_threads(arguments.threads)
    subject = _subject(arguments.subject)
    if arguments.worker:
        small = argparse.Namespace(**{**vars(arguments), "components": 1, "positions": min(arguments.positions, 16)})
        subject.build(small, arguments.worker)()  # libraries and kernels are loaded before the baseline is taken
        print(json.dumps(measured(subject.build(arguments, arguments.worker), arguments.repeats, arguments.device)))
        return 0
    where = machine(arguments.device, arguments.threads)
    names = [name for name in subject.NAMES if not arguments.only or name in arguments.only]
    results = alternating(sys.argv[1:], names, arguments.rounds)
    found = {"subject": arguments.subject, "shapes": subject.shapes(arguments), "machine": where, **summary(results)}
    found |= _ratios(results, names, ratio)
    print(json.dumps(found, indent=2))
    return 0


def _ratios(results: dict, names: list[str], ratio) -> dict:
    """time_ratio and memory_ratio of the first implementation over the other; with more than two, of every pair by name."""
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    found = {}
    for a, b in pairs:
        suffix = "" if len(pairs) == 1 else f"_{a}_over_{b}"
        found[f"time_ratio{suffix}"] = ratio(results, a, b, "seconds")
        found[f"cpu_time_ratio{suffix}"] = ratio(results, a, b, "cpu_seconds")
        found[f"memory_ratio{suffix}"] = ratio(results, a, b, "peak_bytes")
    return found


def _subject(name: str):
    """The module that builds the work."""
    import importlib

    return importlib.import_module(f"benchmarks.{name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="subject", required=True)
    for name in SUBJECTS:
        subject = _subject(name)
        command = commands.add_parser(name, help=subject.__doc__.splitlines()[0])
        subject.add_arguments(command)
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        command.add_argument("--threads", type=int, default=os.cpu_count())
        command.add_argument("--rounds", type=int, default=3, help="fresh processes an implementation")
        command.add_argument("--repeats", type=int, default=2, help="timed runs a process, after one for memory")
        command.add_argument("--only", nargs="*", default=[], help="measure these implementations only")
        command.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
