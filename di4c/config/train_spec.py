"""How a run trains, as a spec says it."""

from dataclasses import dataclass
from pathlib import Path

from di4c.engine.options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class TrainSpec(TrainOptions):
    """One run of the trainer: the engine's options, and `run`, the run's folder."""

    run: Path
