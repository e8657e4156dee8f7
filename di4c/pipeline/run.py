"""A spec trained, in one run or in those of its pipeline.

RUN/NAME              each run of the pipeline, a run folder of its own
RUN/measured          what was measured of them, cell by cell
RUN/spec.yaml, run.json, export   of the whole: the export of the run that the pipeline names at its end
"""

from contextlib import ExitStack, closing

import torch

from di4c import ranks
from di4c.config.check import check
from di4c.config.pipeline import build_pipeline, planned_specs
from di4c.config.registry import Registry
from di4c.config.resuming import refuse_edited
from di4c.config.spec import Spec
from di4c.contracts import Pipeline
from di4c.engine.export import copy_export
from di4c.engine.loop import Result
from di4c.engine.run_folder import RunFolder
from di4c.pipeline.runs import Interrupted, SpecRuns
from di4c.pipeline.training import train_spec


def run(spec: Spec, *, device: torch.device, resume: bool) -> Result:
    """Trains what a spec describes, to its end or until SIGTERM. Collective.

    A pipeline that was killed at any moment, between its runs too, goes on with resume=True. Raises as `check` and `train` do.
    """
    registry = Registry.default(spec.plugins)
    check(spec, registry)  # first of all: a mistyped option is told before a teacher that is not trained yet
    if spec.pipeline is None:
        return train_spec(spec, resume=resume)
    pipeline = build_pipeline(spec, registry)
    held: list[RunFolder] = []
    with ExitStack() as stack:
        ranks.on_rank_zero(lambda: held.append(stack.enter_context(closing(RunFolder(spec.train.run, resume=resume)))))
        return _run(spec, pipeline, SpecRuns(spec, registry, device), held[0] if held else None)


def _run(spec: Spec, pipeline: Pipeline, runs: SpecRuns, folder: RunFolder | None) -> Result:
    """The pipeline from its beginning; folder: of the whole, on rank 0."""

    def refuse() -> None:
        for run in planned_specs(spec, pipeline).values():
            refuse_edited(run, inner=True)

    ranks.on_rank_zero(refuse)
    changed = ranks.on_rank_zero(
        lambda: folder.record_start(spec.to_dict(), {"seed": spec.seed, "world_size": ranks.world_size()})
    )
    if changed:
        runs.say(f"note: the spec differs from the one that this run began with: {', '.join(changed)}")
    try:
        chosen = pipeline.run(runs)
    except Interrupted:
        chosen = None

    def end() -> int:
        if chosen is not None:
            copy_export(spec.train.run / chosen / "export", spec.train.run / "export")
        folder.record_end(step=runs.steps(), finished=chosen is not None)
        return runs.steps()

    steps = ranks.on_rank_zero(end)
    if chosen is not None:
        runs.say(f"{spec.train.run}: the result is {chosen}'s")
    return Result(steps, finished=chosen is not None)
