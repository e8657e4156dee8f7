"""python -m di4c list [KIND] · python -m di4c check SPEC · python -m di4c plan SPEC"""

import argparse
import sys

from di4c.command import command, number
from di4c.config.describe import first_docstring_line
from di4c.config.registry import KINDS, SINGULAR, SPEC_KEYS, Registry
from di4c.config.spec import Spec, read_spec


@command
def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m di4c", description="Look up parts; check a spec; plan a run.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="print the names of all parts, where they come from and what they are")
    listing.add_argument("kind", nargs="?", help=f"one of {', '.join(KINDS)}")
    listing.add_argument("--plugin", action="append", default=[], help="a module or .py file to include")
    listing.set_defaults(run=_list)
    checking = commands.add_parser("check", help="validate a spec: every key, name and option")
    checking.add_argument("spec")
    checking.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. train.steps=10")
    checking.set_defaults(run=_check)
    planning = commands.add_parser("plan", help="estimate memory and FLOPs of a spec, and what fits")
    planning.add_argument("spec")
    planning.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. objective.components=64")
    planning.add_argument("--gpus", type=number(1), default=1, help="how many, over all nodes")
    planning.add_argument("--gpu-memory", metavar="SIZE", help="of each, e.g. 80GB")
    planning.set_defaults(run=_plan)
    return parser


def _list(options: argparse.Namespace) -> int:
    registry = Registry.default(options.plugin)
    plural = {singular: kind for kind, singular in SINGULAR.items()}
    kinds = KINDS if options.kind is None else [plural.get(options.kind, options.kind)]
    for kind in kinds:
        targets = registry.targets(kind)
        print(f"{kind} (in a spec: {SPEC_KEYS[kind]})" if targets else f"{kind}: none")
        name_width = max((len(target.name) for target in targets), default=0)
        source_width = max((len(target.source) for target in targets), default=0)
        for target in targets:
            print(f"  {target.name:<{name_width}}  {target.source:<{source_width}}  {first_docstring_line(target)}")
    return 0


def _check(options: argparse.Namespace) -> int:
    spec = read_spec(options.spec, options.set)
    from di4c.config.check import check  # only now torch, so that a mistake in the spec is told at once

    parts = check(spec, Registry.default(spec.plugins))
    print(f"ok: {spec.source}")
    print(_summary(spec))
    for where, reference in parts:
        print(f"  {where:<16} {reference}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    spec = read_spec(options.spec, options.set)
    from di4c.planning.plan import Plan, parsed_bytes
    from di4c.planning.text import plan_text

    room = None if options.gpu_memory is None else parsed_bytes(options.gpu_memory)
    print(plan_text(Plan(spec, gpus=options.gpus, gpu_memory=room)))
    return 0


def _summary(spec: Spec) -> str:
    train = spec.train
    size = f"{train.steps} steps of {train.batch_size} examples"
    return f"  {spec.task}, {size}, {train.precision}, seed {spec.seed} → {train.run}"


if __name__ == "__main__":
    sys.exit(main())
