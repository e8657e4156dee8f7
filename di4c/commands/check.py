"""Validates a spec: every key, name and option, and what parts say of them; reads no data, makes no network."""

import argparse

from di4c.config.registry import Registry
from di4c.config.spec import Spec, read_spec


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("spec", help="a file, or the name of a shipped spec (di4c list specs)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. train.steps=10")
    options = parser.parse_args(arguments)
    spec = read_spec(options.spec, options.set)
    from di4c.config.check import check  # only now torch, so that a mistake in the spec is told at once

    parts = check(spec, Registry.default(spec.plugins))
    print(f"ok: {spec.source}")
    print(_summary(spec))
    for where, reference in parts:
        print(f"  {where:<16} {reference}")


def _summary(spec: Spec) -> str:
    train = spec.train
    size = f"{train.steps} steps of {train.batch_size} examples"
    return f"  {spec.task}, {size}, {train.precision}, seed {spec.seed} → {train.run}"
