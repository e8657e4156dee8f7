"""Compares a run with its teacher: a table, plots and a report.

Also runs under deepspeed, torchrun and srun on several devices. An interrupted call continues where it was.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

from di4c.command_line import number, numbers, path_argument, positive, positives, reporting
from di4c.engine.launchers import rank_environment
from di4c.errors import SpecError

SECONDS_BETWEEN_LINES = 5
SET = "changes eval or data of the runs' specs, e.g. eval.sampler.guidance=3; repeatable"


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    options = parser(prog).parse_args(arguments)
    with reporting():
        os.environ |= rank_environment(os.environ)
        evaluate(options)


def evaluate(options: argparse.Namespace) -> None:
    """Measures, writes everything to --out, and prints the table."""
    from di4c.engine.process_group import launched_ranks
    from di4c.evaluation.arguments import device_of
    from di4c.evaluation.comparison import compare, load_also, runs_in, settings_of
    from di4c.evaluation.finding import finding
    from di4c.evaluation.loaded import load
    from di4c.evaluation.table import print_table, terminal_table

    curves = _frontier(options)
    device = None if options.device in (None, "cuda") else device_of(options.device)
    with launched_ranks(device) as ranks:
        run = load(options.run, device=ranks.device, overrides=options.set)
        settings = settings_of(
            run.spec, steps=options.steps, mixture_sizes=options.mixture_sizes, samples=options.samples,
            seeds=options.seeds, batch_size=options.batch_size, metrics=options.metrics,
            temperature=options.temperature, top_p=options.top_p,
        )  # fmt: skip
        runs = runs_in(options.run) if options.every_run else []
        also = load_also([*runs, *options.also], ranks.device, options.set)
        say = _progress() if ranks.first else lambda done, total, text: None
        outcome = compare(
            run, settings, options.out, also=also, ranks=ranks, say=say, alone=options.alone, frontier=curves
        )
        if outcome is not None:
            shown = outcome.rows, outcome.reference_values, outcome.higher_is_better
            print_table(terminal_table(*shown))
            told = [] if outcome.frontier is None else outcome.frontier.told()
            print(
                "\n".join([finding(*shown), *told, ""])
                + f"{options.out}/eval.json, eval.csv, eval.png, grids/\nreport: {(options.out / 'report.html').resolve()}"
            )


def _frontier(options: argparse.Namespace) -> Any:
    """What --temperatures, --quality and --entropy ask for, or None. Raises SpecError."""
    from di4c.evaluation.tempered import FrontierOptions

    if options.temperatures is None:
        if options.quality or options.entropy:
            raise SpecError("--quality and --entropy are of the frontier; add --temperatures")
        return None
    return FrontierOptions(tuple(options.temperatures), options.quality, options.entropy)


def _progress() -> Callable[[int, int, str], None]:
    """A bar in a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not Console().is_terminal:
        return _lines()
    columns = (TextColumn("measuring"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    bar = Progress(*columns, transient=True)
    task = bar.add_task("", total=None)
    bar.start()

    def say(done: int, total: int, text: str) -> None:
        bar.update(task, completed=done, total=total, description=text)
        if done >= total:
            bar.stop()

    return say


def _lines() -> Callable[[int, int, str], None]:
    last: float = -SECONDS_BETWEEN_LINES

    def say(done: int, total: int, text: str) -> None:
        nonlocal last
        if text and time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"measuring {done + 1}/{total}: {text}", flush=True)

    return say


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__.splitlines()[0],
        epilog="What is not given is taken from the spec's eval section.",
    )
    parser.add_argument(
        "--run", required=True, type=path_argument, help="a run folder (distilled, or a pretrained teacher)"
    )
    parser.add_argument("--out", required=True, type=path_argument, help="folder of the results")
    parser.add_argument("--steps", type=numbers(1), metavar="N,N…", help="numbers of sampling steps, e.g. 1,2,4,8,16")
    parser.add_argument(
        "--mixture-sizes", type=_words, metavar="K,K…", help="atoms of λ, inf, product, e.g. 1,16,inf,product"
    )
    parser.add_argument("--samples", type=number(1), metavar="N", help="samples a cell")
    parser.add_argument("--seeds", type=number(1), metavar="K", help="number of sampling seeds")
    parser.add_argument("--batch-size", type=number(1), metavar="N", help="samples at a time")
    parser.add_argument("--metrics", type=_words, metavar="NAME,NAME…", help="metrics to compute")
    parser.add_argument(
        "--temperature", type=positive(), metavar="T", help="of every prediction (the spec's eval.temperature, else 1)"
    )
    parser.add_argument(
        "--temperatures", type=positives, metavar="T,T…", help="draw quality against entropy, e.g. 0.7,0.8,0.9,1.0"
    )
    parser.add_argument(
        "--quality", metavar="NAME", help="of --temperatures: a measured value (the first that has a good way)"
    )
    parser.add_argument(
        "--entropy", metavar="NAME", help="of --temperatures (the sequences' entropy, else the positions')"
    )
    parser.add_argument(
        "--top-p", type=positive(1), metavar="P", help="draw among the likeliest states (the spec's eval.top_p, else 1)"
    )
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=RUN", help="a further run to compare; repeatable"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET)
    parser.add_argument("--every-run", action="store_true", help="compare every run of the spec's pipeline too")
    parser.add_argument("--alone", action="store_true", help="a student without its teacher")
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return parser


def _words(text: str) -> list[str]:
    return text.split(",")
