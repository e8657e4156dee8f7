"""A spec trained: its parts built, given to the engine."""

import dataclasses

from di4c.config.build import build, portable
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.engine.loop import Result, Run, train
from di4c.engine.options import OptimizerOptions, ScheduleOptions, TrainOptions


def train_spec(spec: Spec, *, resume: bool) -> Result:
    """Trains the one run that a spec without `procedure` describes, in its run folder. Collective; raises as `build` and `train` do."""
    parts = build(spec, Registry.default(spec.plugins))
    run = Run(
        spec.train.run,
        seed=spec.seed,
        fingerprint=parts.data.fingerprint(),
        spec=spec.to_dict(),
        exported_spec=portable(spec, parts.teacher).to_dict(),
    )
    split = parts.data.split("train")
    return train(parts.objective, split, run=run, options=train_options(spec), deepspeed=spec.deepspeed, resume=resume)


def train_options(spec: Spec) -> TrainOptions:
    """The train section as the engine's plain values."""
    values = dataclasses.asdict(spec.train)
    del values["run"]
    values["optimizer"] = OptimizerOptions(**values["optimizer"])
    values["schedule"] = ScheduleOptions(**values["schedule"])
    return TrainOptions(**values)
