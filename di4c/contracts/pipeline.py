"""Which runs a spec makes, and what follows from them.

    spec ─ planned ─► {name: a run's spec}
    run(runs):  runs.train(name, spec) ─► RUN/name, a run folder ─ runs.evaluate ─► values ─► what to do next
                      … ─► the name of the run that stands for the whole: its export becomes RUN/export

A spec without `pipeline` is one run. A pipeline is plain Python over whole runs: it sees no tensor, no rank and no DeepSpeed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """A metric's mean and standard deviation over sampling seeds; higher_is_better: which way is good, None if neither."""

    mean: float
    std: float
    higher_is_better: bool | None


class Runs(ABC):
    """The runs of one spec, as a pipeline may use them; the framework implements it.

    Every method is collective: all ranks make the same calls in the same order, and get the same results, so that a pipeline
    which follows nothing else (no clock, no files of its own, no random numbers but by the spec's seed) decides alike everywhere.
    A run is called by its name, a plain folder name; its folder is `folder / name`.

    spec: the spec in plain values as after `python -m di4c check`, defaults filled in, without `pipeline`.
    folder: train.run, the folder of the whole, held by this process. The framework writes spec.yaml, run.json, export/ and
    measured/ there; everything else in it is the pipeline's.
    """

    spec: Mapping[str, Any]
    folder: Path

    @abstractmethod
    def train(self, name: str, spec: Mapping[str, Any]) -> None:
        """Trains a run of this spec in its folder, or what is left of it; at once if nothing is left.

        spec: plain values; train.run is set to the run's folder whatever it says. When a signal ends the training, the call does
        not return: the whole ends there, to be continued by --resume. Raises SpecError where the spec is no good, and whatever
        training raises.
        """

    @abstractmethod
    def evaluate(self, name: str | None, steps: int) -> dict[str, Measured]:
        """{value: what eval.metrics report} of a trained run's model with that number of sampling steps.

        A student is taken with its whole prior; None: the teacher that the spec itself names. Samples and seeds are those of
        the eval section, split over the ranks; what is once measured is kept in measured/ under a digest of the weights.
        Raises SpecError without an eval section.
        """

    @abstractmethod
    def training_values(self, name: str) -> dict[str, float]:
        """The last value of every column of a trained run's metrics.csv: loss and its parts, diagnostics, lr, seconds."""

    @abstractmethod
    def seconds(self, name: str) -> float:
        """Wall-clock seconds that a run has been trained, all sessions together."""

    @abstractmethod
    def read(self, file: str) -> str | None:
        """The text of a file in `folder`, or None if there is none."""

    @abstractmethod
    def write(self, file: str, text: str) -> None:
        """Writes a file in `folder`; a reader or a crash finds the old text or the new one, whole."""

    @abstractmethod
    def on_rank_zero(self, action: Callable[[], T]) -> T:
        """`action()` of rank 0 alone, its result (which must pickle) on all ranks: for files that `write` does not make, a plot say.

        A Di4CError or OSError there is raised on all ranks.
        """

    @abstractmethod
    def say(self, text: str) -> None:
        """Prints a line, once."""


class Pipeline(ABC):
    """Which runs a spec makes. Named under a spec's `pipeline`, its options are its constructor's.

    A process may be killed at any moment. With --resume the pipeline is constructed and run anew on the same folder:
    `run` begins at its beginning, `train` and `evaluate` return at once what is done already, and `read` gives what was
    written; a pipeline that decides by these alone ends as if it had never been killed. It must not write over a decision
    that later calls depend on before they are made again.
    """

    @abstractmethod
    def planned(self, spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """{name: spec} of the runs that can be told beforehand, which are checked before anything is trained.

        spec: as `Runs.spec`. Runs that follow from others are left out; one of each sort is enough to find mistakes early.
        Raises SpecError, naming the key (pipeline.…), where the pipeline cannot do with such a spec.
        """

    @abstractmethod
    def run(self, runs: Runs) -> str:
        """Trains and measures; the name of the trained run whose export becomes that of the whole, loaded as `di4c.load(RUN)`."""


def merged(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with changes, mappings merged key by key; an entry that names another part replaces the old one whole."""
    result = dict(spec)
    for key, change in changes.items():
        old = result.get(key)
        if isinstance(old, str) and isinstance(change, Mapping):  # the bare name of a part, which keeps it
            old = {"name": old}
        both = isinstance(change, Mapping) and isinstance(old, Mapping)
        same_part = both and change.get("name", old.get("name")) == old.get("name")
        result[key] = merged(old, change) if same_part else change
    return result
