"""Estimates memory and FLOPs of a spec, and what fits."""

import argparse

from di4c.command_line import number
from di4c.config.spec import read_spec


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("spec", help="a file, or the name of a shipped spec (di4c list specs)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. objective.components=64")
    parser.add_argument("--gpus", type=number(1), default=1, help="how many, over all nodes")
    parser.add_argument("--gpu-memory", metavar="SIZE", help="of each, e.g. 80GB")
    options = parser.parse_args(arguments)
    spec = read_spec(options.spec, options.set)
    from di4c.planning.plan import Plan, parsed_bytes  # only now torch
    from di4c.planning.text import plan_text

    most = None if options.gpu_memory is None else parsed_bytes(options.gpu_memory)
    print(plan_text(Plan(spec, gpus=options.gpus, gpu_memory=most)))
