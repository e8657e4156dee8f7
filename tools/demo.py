"""What tools/demo.sh shows: trains a teacher of digits, distils it, compares the two. Continues where it was interrupted.

    deepspeed tools/demo.py FOLDER [--control] [--set KEY=VALUE]…

One launch serves all: every further one would import and meet anew, which takes longer than an evaluation.
"""

import argparse
import os
import time
from pathlib import Path

from di4c.command_line import leave, number, path_argument, reporting
from di4c.commands import evaluate
from di4c.config.spec import read_spec
from di4c.engine.launchers import rank_environment

SPECS = {"teacher": "digits-teacher", "student": "digits-student", "one-component": "digits-one-component"}
SHORTER = ["train.batch_size=32", "train.optimizer.lr=3e-3"]
"""What differs from the specs: half the examples a step, so that all takes five minutes on two cores."""

TOLD = {
    "teacher": "a masked-diffusion transformer of scikit-learn's digits",
    "student": "a mixture of 32 product models, distilled from the teacher",
    "one-component": "the control: the same student with one component, the same budget",
}


def main() -> None:
    options = _parser().parse_args()
    names = [name for name in SPECS if options.control or name != "one-component"]
    with reporting():
        os.environ |= rank_environment(os.environ)
        specs = {name: read_spec(SPECS[name], _overrides(name, options)) for name in names}
        code = _shown(specs, options)
    if code:
        leave(code)


def _shown(specs: dict, options: argparse.Namespace) -> int:
    """Everything in turn; the exit code. All that imports torch is imported here."""
    from di4c import ranks
    from di4c.engine import process_group
    from di4c.engine.allocator import keep_freed_memory
    from di4c.pipeline.run import run

    begin = time.monotonic()
    first = os.environ["RANK"] == "0"

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - begin), 60)
        if first:
            print(f"\n[{minutes}:{seconds:02d}] {text}", flush=True)

    keep_freed_memory()
    device = process_group.start()
    for name, spec in specs.items():
        say(f"{name}: {TOLD[name]}, {ranks.world_size()} processes under DeepSpeed")
        if not run(spec, device=device, resume=True).finished:
            return process_group.STOPPED_BY_SIGNAL
    folder = options.folder
    also = ["--also", f"one-component={folder / 'one-component'}"] if options.control else []
    say(f"evaluation at {', '.join(map(str, specs['student'].eval.steps))} steps")
    given = ["--run", folder / "student", "--out", folder / "report", "--seeds", options.seeds, *also]
    evaluate.evaluate(evaluate.parser().parse_args([*map(str, given)]))
    say(f"done: {folder}/report/report.html")
    process_group.finish()
    return 0


def _overrides(name: str, options: argparse.Namespace) -> list[str]:
    teacher = [] if name == "teacher" else [f"teacher.run={options.folder / 'teacher'}"]
    return [*SHORTER, f"train.run={options.folder / name}", *teacher, *options.set]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", type=path_argument, nargs="?", default=Path("runs/demo"), help="where everything goes"
    )
    parser.add_argument("--control", action="store_true", help="also train the same student with one component")
    parser.add_argument("--seeds", type=number(1), default=1, help="sampling seeds of the evaluation (default: 1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key of every spec")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
