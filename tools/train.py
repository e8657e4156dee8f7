"""Trains what a spec describes: deepspeed tools/train.py --spec SPEC [--set a.b=c]… [--resume]

Also runs under torchrun and srun, and as plain `python tools/train.py` on one device.
"""

import argparse
import dataclasses
import os
import sys
from typing import TYPE_CHECKING

from di4c.config.spec import Spec, read_spec
from di4c.engine.launchers import rank_environment
from di4c.engine.reporting import leave, reporting
from di4c.engine.run_folder import refuse_used

if TYPE_CHECKING:
    from di4c.engine.options import TrainOptions


def main() -> None:
    arguments = _arguments()
    os.environ |= rank_environment(os.environ)
    with reporting():
        spec = read_spec(arguments.spec, arguments.set)
        if not arguments.resume and os.environ["RANK"] == "0":
            refuse_used(spec.train.run)
        code = _train(spec, resume=arguments.resume)
    if code:
        leave(code)


def _train(spec: Spec, *, resume: bool) -> int:
    """Builds the spec's parts and trains; the exit code."""
    from di4c.config.build import build, portable
    from di4c.config.registry import Registry
    from di4c.engine import ranks
    from di4c.engine.loop import Run, train

    device = ranks.start()
    parts = build(spec, Registry.default(spec.plugins))
    if parts.teacher is not None:
        parts.teacher.to(device)
    run = Run(
        spec.train.run,
        seed=spec.seed,
        fingerprint=parts.data.fingerprint(),
        spec=spec.to_dict(),
        exported_spec=portable(spec, parts.teacher).to_dict(),
    )
    split = parts.data.split("train")
    result = train(parts.objective, split, run=run, options=_options(spec), deepspeed=spec.deepspeed, resume=resume)
    ranks.finish()
    return 0 if result.finished else ranks.STOPPED_BY_SIGNAL


def _options(spec: Spec) -> "TrainOptions":
    """The train section as the engine's plain values."""
    from di4c.engine.options import OptimizerOptions, ScheduleOptions, TrainOptions

    values = dataclasses.asdict(spec.train)
    del values["run"]
    values["optimizer"] = OptimizerOptions(**values["optimizer"])
    values["schedule"] = ScheduleOptions(**values["schedule"])
    return TrainOptions(**values)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, metavar="YAML", help="what to train")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. train.steps=100")
    parser.add_argument("--resume", action="store_true", help="continue from the run's last good checkpoint, if it has one")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    main()
