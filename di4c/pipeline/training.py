"""A spec trained: its parts built, given to the engine."""

from typing import Any

from di4c import ranks
from di4c.config.build import build, portable
from di4c.config.registry import Registry
from di4c.config.resuming import refuse_edited
from di4c.config.spec import Spec
from di4c.engine.checkpoint import candidates
from di4c.engine.loop import Result, Run, train


def train_spec(spec: Spec, *, resume: bool) -> Result:
    """Trains the one run that a spec without `pipeline` describes, in its run folder. Collective; raises as `build` and `train` do.

    A finished run whose spec was edited since is refused; see `refuse_edited`.
    """
    if resume:
        ranks.on_rank_zero(lambda: refuse_edited(spec, inner=False))
    begun = resume and ranks.on_rank_zero(lambda: bool(candidates(spec.train.run / "checkpoints")))
    parts = build(spec, Registry.default(spec.plugins), start=not begun)
    data: Any = parts.data
    run = Run(
        seed=spec.seed,
        fingerprint=data.fingerprint(),
        spec=spec.to_dict(),
        exported_spec=portable(spec, parts.teacher).to_dict(),
        data=data,
    )
    split = data.checked_split("train", parts.process)
    return train(parts.objective, split, run=run, options=spec.train, deepspeed=spec.deepspeed, resume=resume)
