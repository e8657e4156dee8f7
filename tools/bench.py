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

SUBJECTS = ("loss",)


def main() -> int:
    arguments = _parser().parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch

    from benchmarks.measure import alternating, machine, measured, ratio, summary

    torch.set_num_threads(arguments.threads)
    subject = _subject(arguments.subject)
    if arguments.worker:
        print(json.dumps(measured(subject.build(arguments, arguments.worker), arguments.repeats, arguments.device)))
        return 0
    where = machine(arguments.device, arguments.threads)
    names = [name for name in subject.NAMES if not arguments.only or name in arguments.only]
    results = alternating(sys.argv[1:], names, arguments.rounds)
    found = {"subject": arguments.subject, "shapes": subject.shapes(arguments), "machine": where, **summary(results)}
    for name in names[1:]:
        found |= {
            _named("time_ratio", name, names): ratio(results, names[0], name, "seconds"),
            _named("memory_ratio", name, names): ratio(results, names[0], name, "peak_bytes"),
        }
    print(json.dumps(found, indent=2))
    return 0


def _named(quantity: str, name: str, names: list[str]) -> str:
    """time_ratio of the first implementation over the other; over several others, each by its name."""
    return quantity if len(names) == 2 else f"{quantity}_over_{name}"


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
