"""Runs a grid of trainings and evaluations: python tools/ablate.py --grid GRID [--spec SPEC] --out FOLDER [--jobs N] [--set a.b=c]…

Every run is trained, evaluated without its teacher, and kept in FOLDER; called again, it goes on where it was. What is evaluated so
far is always in FOLDER/ablation.json, ablation.md and ablation.png: means and spread over training seeds.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from di4c.command_line import INTERRUPTED, number, numbers, path_argument
from di4c.command_line import command as reported
from di4c.errors import SpecError


@reported
def main() -> int:
    return ablate(_arguments())


def ablate(arguments: argparse.Namespace) -> int:
    """Carries out the grid; 1 where a run failed."""
    from tools.ablation import collected
    from tools.ablation.grid import read_grid, trials

    grid = read_grid(arguments.grid)
    made = trials(grid, arguments.spec, arguments.grid, arguments.out, arguments.set)
    arguments.out.mkdir(parents=True, exist_ok=True)

    def gather() -> str:
        return collected.write(collected.collect(made), grid, made, arguments.out)

    code = 0 if arguments.collect else _run(arguments, _chosen(made, arguments), gather)
    print(f"\n{gather()}\n{arguments.out}/ablation.json, ablation.md, ablation.png")
    return code


def _run(arguments: argparse.Namespace, chosen: Sequence, gather) -> int:
    from tools.ablation.running import Children, Runner, jobs_of, run_jobs

    children = Children(niceness=arguments.nice, threads=arguments.threads)
    data = tuple(change for change in arguments.set if change.startswith("data."))
    runner = Runner({trial.key: trial for trial in chosen}, children, gather, data)

    def stop(signum: int, frame: FrameType | None) -> None:
        children.end()

    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        failed = run_jobs(jobs_of(chosen), runner, arguments.jobs)
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
    if children.ended:
        sys.exit(INTERRUPTED)
    if failed:
        told = "; ".join(f"{job.kind} {job.trial[0]}, seed {job.trial[1]}" for job in failed)
        print(f"{len(failed)} of {len(jobs_of(chosen))} parts are not done: {told}")
    return 1 if failed else 0


def _chosen(made: Sequence, arguments: argparse.Namespace) -> list:
    """The trials of --rows and --seeds, with those that they are made of. Raises SpecError for a row that is not there."""
    rows = {trial.row for trial in made}
    for name in arguments.rows or ():
        if name not in rows:
            raise SpecError(f"--rows: no row {name!r}; the grid has {', '.join(sorted(rows))}")
    rows, seeds = arguments.rows or rows, arguments.seeds
    wanted = {trial.key for trial in made if trial.row in rows and (seeds is None or trial.seed in seeds)}
    for trial in reversed(made):  # those that it is made of stand before it
        if trial.key in wanted:
            wanted |= {need.key for need in trial.needs}
    return [trial for trial in made if trial.key in wanted]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--grid", required=True, type=path_argument, metavar="YAML", help="rows, seeds and the judged metric"
    )
    parser.add_argument(
        "--spec", metavar="YAML", help="of the rows that name none: a file, or the name of a shipped spec"
    )
    parser.add_argument("--out", required=True, type=path_argument, metavar="FOLDER", help="of all runs and results")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="in every spec, e.g. data.path=FOLDER"
    )
    parser.add_argument("--jobs", type=number(1), default=1, metavar="N", help="trainings or evaluations at a time (1)")
    parser.add_argument("--threads", type=number(1), default=1, metavar="N", help="CPU threads of each (1)")
    parser.add_argument(
        "--nice", type=number(0), default=5, metavar="N", help="how much to give way to others, 0 to 19 (5)"
    )
    parser.add_argument(
        "--rows", type=lambda text: text.split(","), metavar="NAME,…", help="only these, and what they are made of"
    )
    parser.add_argument("--seeds", type=numbers(0), metavar="N,…", help="only these training seeds")
    parser.add_argument("--collect", action="store_true", help="train and evaluate nothing, only gather what is there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
