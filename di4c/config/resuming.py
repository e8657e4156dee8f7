"""What of a spec may change when a run goes on, and what makes it another run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from di4c.config.spec import Spec, with_texts
from di4c.engine.checkpoint import candidates
from di4c.engine.exported import exported_step
from di4c.engine.run_folder import changed_keys, recorded_spec
from di4c.errors import Di4CError, SpecError

FREE = (
    "eval", "deepspeed", "plugins", "pipeline", "train.run", "train.steps", "train.micro_batch_size", "train.checkpoint_every", "train.keep",
    "train.log_every", "train.diagnostics_every", "train.on_nonfinite", "train.teacher_placement", "train.compile", "train.graphs",
    "data.path", "data.test_path", "data.cache",
)  # fmt: skip
"""Keys, those below them too, that do not shape the weights; more steps are made, and other data are told by their fingerprint."""


def refuse_edited(spec: Spec, *, inner: bool) -> None:
    """Raises SpecError where the weights in a run's folder are not those that its spec, edited since, would give.

    A finished run cannot become another one; nor can one of a pipeline (`inner`) that has made a checkpoint, since it is compared
    with others. They are refused rather than trained anew: what took hours is not thrown away for an edit.
    """
    folder = spec.train.run
    before, made = recorded_spec(folder), exported_step(folder / "export")
    finished = 0 < _steps(before) <= made
    if not (finished or (inner and before is not None and candidates(folder / "checkpoints"))):
        return
    told = f"{spec.source}: {folder} {'is finished' if finished else 'has begun'}"
    remedy = f"set it back, choose another train.run, or remove {folder} to train it anew"
    if inner:
        before = _moved(before, folder.parent)
    changed = [key for key in changed_keys(_completed(before), spec.to_dict()) if not _is_free(key)]
    if changed:
        raise SpecError(f"{told}, and was trained with another {', '.join(changed)}; {remedy}")
    if made > spec.train.steps:
        raise SpecError(f"{told} with {made} steps, more than train.steps: {spec.train.steps}; {remedy}")


def refuse_orphans(run: Path, others: Iterable[Path]) -> None:
    """Raises SpecError where a run is to be trained, and others are there that were made of what it was before."""
    for other in others:
        if other != run and _names(recorded_spec(other), str(run)):
            raise SpecError(
                f"{other} was made of {run}, which is to be trained now; remove {other} too, or set the spec back"
            )


def is_trained(spec: Spec) -> bool:
    """Whether the run of just this spec has made all its updates."""
    before = recorded_spec(spec.train.run)
    if before is None or exported_step(spec.train.run / "export") < spec.train.steps:
        return False
    return not changed_keys(before, spec.to_dict())


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _steps(values: Any) -> int:
    """train.steps of recorded values; 0 where they have none."""
    try:
        return int(values["train"]["steps"])
    except (KeyError, TypeError, ValueError):
        return 0


def _moved(values: Any, folder: Path) -> Any:
    """Recorded values of a run inside the folder of a whole that may have been moved since: as they would be in `folder`."""
    was = f"{Path(values['train']['run']).parent}/"
    return with_texts(values, lambda text: str(folder / text.removeprefix(was)) if text.startswith(was) else text)


def _completed(values: Any) -> Any:
    """Recorded values with the defaults of options that are newer than they; as they are where they make no spec now."""
    try:
        return Spec.from_dict(values).to_dict()
    except Di4CError:
        return values


def _names(values: Any, text: str) -> bool:
    """Whether a text is among plain values."""
    if isinstance(values, dict | list):
        return any(_names(value, text) for value in (values.values() if isinstance(values, dict) else values))
    return values == text
