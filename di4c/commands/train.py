"""Trains what a spec describes, as one rank: under deepspeed, torchrun or srun, or alone."""

import argparse
import os

from di4c import command_line
from di4c.config.spec import Spec, read_spec
from di4c.engine.launchers import rank_environment


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    options = parser(prog).parse_args(arguments)
    with command_line.reporting():
        os.environ |= rank_environment(os.environ)
        spec = read_spec(options.spec, options.set)
        code = _train(spec, resume=options.resume)
    if code:
        command_line.leave(code)


def _train(spec: Spec, *, resume: bool) -> int:
    """Trains the spec, in one run or in those of its pipeline; the exit code. All that imports torch is imported here."""
    from di4c.engine import process_group
    from di4c.engine.allocator import keep_freed_memory
    from di4c.engine.determinism import deterministic
    from di4c.engine.run_folder import refuse_used
    from di4c.pipeline.run import run

    if not resume and os.environ["RANK"] == "0":
        refuse_used(spec.train.run)
    keep_freed_memory()
    with deterministic(spec.train.deterministic):  # before CUDA starts
        result = run(spec, device=process_group.start(), resume=resume)
        process_group.finish()
    return 0 if result.finished else process_group.STOPPED_BY_SIGNAL


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=prog, description="Trains what a spec describes: a teacher, a student or a tokenizer."
    )
    made.add_argument(
        "--spec",
        required=True,
        metavar="YAML",
        help="what to train: a file, or the name of a shipped spec (di4c list specs)",
    )
    made.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. train.steps=100"
    )
    made.add_argument(
        "--resume", action="store_true", help="continue from the run's last good checkpoint, if it has one"
    )
    made.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return made
