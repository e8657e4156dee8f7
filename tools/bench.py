"""Measures this project: `python tools/bench.py loss`, `step`, `sample`, `pretrain`; prints one JSON object.

The first three compare it with a plain implementation. Every measurement runs in a fresh process, the implementations in turn
(`--in-process`: here, one after another). Peak memory is counted above what the process holds before the work begins; on CUDA it is
that of torch's allocator, and times are medians after a warm-up, with the device waited for.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP / "tools" / "research"), str(TOP / "tools"), str(TOP)]

SUBJECTS = ("loss", "step", "sample", "pretrain")


def main() -> int:
    arguments = parse(sys.argv[1:])
    if arguments.worker:
        print(json.dumps(_worker(arguments)))
    else:
        print(json.dumps(run(sys.argv[1:]), indent=2))
    return 0


def run(argv: list[str]) -> dict:
    """What `bench.py ARGV` finds: subject, shapes, machine; of every implementation times, peak, report; and their ratios."""
    from benchmarks.measure import SYMBOLS, alternating, machine, measured, ratios, summary

    arguments = parse(argv)
    subject = _subject(arguments.subject)
    where = machine(arguments.device, arguments.threads)
    names = [name for name in subject.NAMES if not arguments.only or name in arguments.only]
    if arguments.in_process:
        # no process to start, but on a CPU a peak that earlier work may hide
        results = {
            name: [measured(subject.build(arguments, name), arguments.repeats, arguments.device)] for name in names
        }
    else:
        results = alternating(argv, names, arguments.rounds, arguments.threads)
    found = summary(results)
    if hasattr(subject, "rates"):
        found = {name: one | subject.rates(arguments, one, where["device"]) for name, one in found.items()}
    shapes = {name: getattr(arguments, SYMBOLS.get(name, name)) for name in subject.SHAPES.split()}
    described = {"subject": arguments.subject, "shapes": shapes, "machine": where}
    return described | found | ratios(results)


def _worker(arguments: argparse.Namespace) -> dict:
    from benchmarks.measure import measured

    subject = _subject(arguments.subject)
    if not getattr(arguments, "compile", False):
        small = argparse.Namespace(**{**vars(arguments), "components": 1, "positions": min(arguments.positions, 16)})
        subject.build(small, arguments.worker)()  # libraries and kernels are loaded before the baseline is taken
    return measured(subject.build(arguments, arguments.worker), arguments.repeats, arguments.device)


def _subject(name: str) -> ModuleType:
    """The module that builds the work."""
    return importlib.import_module(f"benchmarks.{name}")


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments, with what was left out filled in; sets the threads."""
    import torch

    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="subject", required=True)
    for name in SUBJECTS:
        subject = _subject(name)
        command = commands.add_parser(name, help=subject.__doc__.splitlines()[0])
        subject.add_arguments(command)
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        command.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default=getattr(subject, "DTYPE", "fp32"))
        command.add_argument("--threads", type=int, default=os.cpu_count())
        command.add_argument("--rounds", type=int, default=3, help="fresh processes an implementation")
        command.add_argument("--repeats", type=int, default=2, help="timed runs a process, after one for memory")
        command.add_argument(
            "--in-process", action="store_true", help="start no process of its own: sooner done, once each"
        )
        command.add_argument(
            "--only", nargs="*", default=[], choices=subject.NAMES, help="measure these implementations only"
        )
        command.add_argument("--worker", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    _subject(arguments.subject).settle(arguments)
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
