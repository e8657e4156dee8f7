"""Where a run's numbers go: metrics.csv, the terminal, and DeepSpeed's monitor if its configuration asks for one."""

import sys
import time
from pathlib import Path

from di4c.engine import ranks
from di4c.engine.files import replace_file
from di4c.engine.metrics import MetricsFile
from di4c.engine.progress import Progress
from di4c.errors import TrainingError

COLLAPSED = (
    "the mixture has collapsed to a product (or has not formed yet): λ carries almost no information about x_0, so that "
    "one-step samples cannot have correlated positions. Try a higher learning rate for the student head "
    "(train.optimizer.lr_multipliers, e.g. {head: 5}) or a larger initial scale of it (student.head.scale), a heavier data term "
    "(objective.data.weight, gate), more components (objective.components), latent: categorical with components: all"
)
UNUSED = (
    "of the one-step samples come from atoms of λ that explain none of the data: they get no gradient of the likelihood, but are drawn "
    "like the others. Put weight on the marginals (objective.data.estimator: control-variate with gate.scale below 1), "
    "or take fewer atoms (latent.atoms)"
)
UNUSED_SHARE = 1 / 5
"""What is warned of in the second half of a run."""


class Reporter:
    """Writes and shows on rank 0; does nothing on the others.

    monitor: a DeepSpeed MonitorMaster. batch_size: examples a step, for the rate.
    """

    def __init__(self, folder: Path, monitor, *, steps: int, batch_size: int):
        self.active = ranks.rank() == 0
        self.folder = folder
        self.file = MetricsFile(folder / "metrics.csv")
        self.monitor, self.steps, self.batch_size = monitor, steps, batch_size
        self._progress: Progress | None = None
        self._since = (time.monotonic(), 0)

    def open(self, step: int) -> None:
        """Begins after `step` updates; rows of later ones, which a killed run left, are dropped."""
        ranks.on_rank_zero(lambda: self.file.truncate(step))
        self._progress = Progress(self.steps, step, shown=self.active)
        self._since = (time.monotonic(), step)

    def report(self, step: int, means: dict[str, float], diagnostics: dict[str, float]) -> None:
        """Records and shows what there is after `step` updates: the means since the last report, the objective's diagnostics."""
        if means:
            now = time.monotonic()
            (then, before), self._since = self._since, (now, step)
            rate = (step - before) * self.batch_size / max(now - then, 1e-9)
            self._record(step, means | diagnostics | {"examples_per_second": round(rate, 2)})
            self._progress.report(step, means, rate)
        elif diagnostics:
            self._record(step, diagnostics)
        if diagnostics:
            self.say("  ".join([f"step {step} diagnostics"] + [f"{k} {v:.4g}" for k, v in diagnostics.items()]))
        if diagnostics.get("mixture_collapsed", 0) > 0:
            self.warn_once("mixture-collapsed", f"step {step}: {COLLAPSED}")
        if diagnostics.get("unused_atoms", 0) > UNUSED_SHARE and 2 * step >= self.steps:
            self.warn_once("unused-atoms", f"step {step}: {diagnostics['unused_atoms']:.0%} {UNUSED}")

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        self._progress.advance(step)

    def say(self, message: str) -> None:
        """Prints one line."""
        if self._progress is not None:
            self._progress.say(message)
        elif self.active:
            print(message, flush=True)

    def warn(self, message: str) -> None:
        """Prints one line of warning."""
        if self._progress is not None:
            self._progress.say(f"warning: {message}")
        elif self.active:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    def warn_once(self, name: str, message: str) -> None:
        """Warns and writes "name: message" to warnings.txt of the run folder, unless that file has a warning of this name."""
        if not self.active:
            return
        file = self.folder / "warnings.txt"
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        if any(line.startswith(f"{name}: ") for line in before.splitlines()):
            return
        replace_file(file, f"{before}{name}: {message}\n")
        self.warn(message)

    def close(self) -> None:
        """Ends the display."""
        if self._progress is not None:
            self._progress.close()

    def _record(self, step: int, values: dict[str, float]) -> None:
        if not self.active:
            return
        try:
            self.file.append(step, values)
        except OSError as error:
            raise TrainingError(ranks.describe_os_error(error)) from error
        if self.monitor.enabled:
            self.monitor.write_events([(f"train/{k}", v, step) for k, v in values.items()])
