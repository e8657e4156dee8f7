"""Where a run's numbers go: metrics.csv, the terminal, and DeepSpeed's monitor if its configuration asks for one."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from di4c import ranks
from di4c.engine.metrics import MetricsFile
from di4c.engine.progress import Progress
from di4c.errors import TrainingError, describe_os_error
from di4c.files import replace_file


class Reporter:
    """Writes and shows on rank 0; does nothing on the others.

    monitor: a DeepSpeed MonitorMaster. batch_size: examples a step, for the rate.
    """

    def __init__(self, folder: Path, monitor, *, steps: int, batch_size: int):
        self.active = ranks.rank() == 0
        self.folder = folder
        self.file = MetricsFile(folder / "metrics.csv")
        self.monitor, self.batch_size = monitor, batch_size
        self.progress, self.opened = Progress(steps, shown=self.active), False
        self.say, self.advance, self.close = self.progress.say, self.progress.advance, self.progress.close
        self._since = (time.monotonic(), 0)

    def open(self, step: int) -> None:
        """Begins after `step` updates; rows of later ones, which a killed run left, are dropped."""
        ranks.on_rank_zero(lambda: self.file.truncate(step))
        self.progress.begin(step)
        self.opened = True
        self._since = (time.monotonic(), step)

    def report(
        self, step: int, means: dict[str, float], diagnostics: dict[str, float], warnings: Mapping[str, str]
    ) -> None:
        """Records and shows what there is after `step` updates.

        means: since the last report. diagnostics: the objective's; warnings: {name: text} that it gives of them, each told
        once a run.
        """
        if means:
            now = time.monotonic()
            (then, before), self._since = self._since, (now, step)
            rate = (step - before) * self.batch_size / max(now - then, 1e-9)
            self._record(step, means | diagnostics | {"examples_per_second": round(rate, 2)})
            self.progress.report(step, means, rate)
        elif diagnostics:
            self._record(step, diagnostics)
        if diagnostics:
            self.say("  ".join([f"step {step} diagnostics"] + [f"{k} {v:.4g}" for k, v in diagnostics.items()]))
        for name, text in warnings.items():
            self.warn_once(name, f"step {step}: {text}")

    def warn(self, message: str) -> None:
        """Prints one line of warning, to stderr before training begins."""
        if self.opened:
            self.say(f"warning: {message}")
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

    def _record(self, step: int, values: dict[str, float]) -> None:
        if not self.active:
            return
        try:
            self.file.append(step, values)
        except OSError as error:
            raise TrainingError(describe_os_error(error)) from error
        if self.monitor.enabled:
            self.monitor.write_events([(f"train/{k}", v, step) for k, v in values.items()])
