"""`Runs` that train nothing, to try a pipeline in memory."""

import contextlib
import copy
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from di4c.contracts import Measured, Pipeline, Runs

T = TypeVar("T")


class Killed(BaseException):
    """The dry run ends here as if the process had been killed."""


class DryRun(Runs):
    """A folder in memory: `trained` {name: spec}, `files` {name: text}; both outlive a kill.

    higher_is_better: of every value that the runs are said to have; the values themselves follow from the run's name and spec.
    kill_at: the number of the call, of those that change something, before which the next `run` is killed.
    """

    def __init__(self, spec: Mapping[str, Any], higher_is_better: Mapping[str, bool | None]):
        self.spec, self.folder = copy.deepcopy(dict(spec)), Path(spec["train"]["run"])
        self.higher_is_better = higher_is_better
        self.trained: dict[str, Any] = {}
        self.files: dict[str, str] = {}
        self.kill_at: int | None = None
        self.calls = 0

    def train(self, name: str, spec: Mapping[str, Any]) -> None:
        self._count()
        spec = copy.deepcopy(dict(spec))
        if self.trained.setdefault(name, spec) != spec:
            raise AssertionError(f"run {name!r} is trained by two specs")

    def evaluate(self, name: str | None, steps: int) -> dict[str, Measured]:
        self._count()
        values = self._values(name, steps)
        return {key: Measured(value, value / 10, self.higher_is_better[key]) for key, value in values.items()}

    def training_values(self, name: str) -> dict[str, float]:
        return self._values(name, 0)

    def seconds(self, name: str) -> float:
        return self._values(name, 0, ["seconds"])["seconds"]

    def read(self, file: str) -> str | None:
        return self.files.get(file)

    def write(self, file: str, text: str) -> None:
        self._count()
        self.files[file] = text

    def on_rank_zero(self, action: Callable[[], T]) -> T:
        return action()

    def say(self, text: str) -> None:
        pass

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.kill_at:
            raise Killed

    def _values(self, name: str | None, steps: int, keys: list[str] | None = None) -> dict[str, float]:
        """Numbers in (0, 1] that stand for what is measured."""
        if name is not None and name not in self.trained:
            raise AssertionError(f"run {name!r} is looked at before it is trained")
        told = repr((name, self.trained.get(name), steps))
        digests = {
            key: hashlib.blake2b(f"{key}{told}".encode(), digest_size=4) for key in keys or self.higher_is_better
        }
        return {key: (int.from_bytes(digest.digest()) + 1) / 2**32 for key, digest in digests.items()}


def check_pipeline(pipeline: Pipeline, spec: Mapping[str, Any], higher_is_better: Mapping[str, bool | None]) -> None:
    """Its runs have folder names, one of them is the result, and killed at any moment it ends as if it had not been.

    spec: a whole run's, as `Runs.spec`. higher_is_better: {value: which way is good}, the metrics that the pipeline looks at.
    Nothing is trained.
    """
    given = copy.deepcopy(dict(spec))
    names = list(pipeline.planned(given))
    assert given == spec, "planned changed the spec that it was given"
    assert names and all(Path(name).name == name for name in names), (
        "planned gives no runs, or names that are no folder's"
    )
    whole = DryRun(spec, higher_is_better)
    chosen = pipeline.run(whole)
    assert chosen in whole.trained, f"run returned {chosen!r}, which is no run that it trained"
    assert set(names) & set(whole.trained), "none of the planned runs was trained"
    for moment in range(1, whole.calls + 1):
        killed = DryRun(spec, higher_is_better)
        killed.kill_at = moment
        with contextlib.suppress(Killed):
            pipeline.run(killed)
        killed.kill_at = None
        again = pipeline.run(killed)
        same = (again, killed.trained, killed.files) == (chosen, whole.trained, whole.files)
        assert same, f"killed at call {moment} and run again, it ends otherwise"
