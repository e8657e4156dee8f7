"""What rank 0 shows while it trains."""

import sys
import time


class Progress:
    """What rank 0 shows: a bar in a terminal once training has begun, otherwise a line a report."""

    def __init__(self, steps: int, *, shown: bool):
        self.steps, self.shown, self._bar = steps, shown, None

    def begin(self, done: int) -> None:
        """Begins after `done` updates."""
        self._first, self._began = done, time.monotonic()
        self._bar = _bar(self.steps, done) if self.shown and sys.stdout.isatty() else None

    def advance(self, step: int) -> None:
        """Moves the bar to `step` updates."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def report(self, step: int, values: dict[str, float], rate: float) -> None:
        """Shows the values of a report; `rate` in examples a second."""
        terms = "  ".join(f"{k} {v:.5g}" for k, v in values.items())
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, terms=f"{terms}  {rate:.0f} examples/s")
        else:
            per_step = (time.monotonic() - self._began) / max(1, step - self._first)
            self.say(
                f"step {step}/{self.steps}  {terms}  {rate:.0f} examples/s  ETA {_clock(per_step * (self.steps - step))}"
            )

    def say(self, message: str) -> None:
        """Prints a line beside the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            print(message, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def _bar(steps: int, done: int):
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("step"), progress.MofNCompleteColumn(), progress.BarColumn(bar_width=20),
        progress.TimeRemainingColumn(), progress.TextColumn("{task.fields[terms]}"),
    )  # fmt: skip
    bar.add_task("train", total=steps, completed=done, terms="")
    bar.start()
    return bar


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
