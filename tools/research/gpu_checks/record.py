"""A part's JSON file: where and with what it ran, and its results so far."""

import datetime
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, version_of

from di4c.files import replace_file

PACKAGES = ("deepspeed", "transformers", "omegaconf", "datasets", "numpy")


class Record:
    """Results by name. finished: whether the part came to its end."""

    def __init__(self, file: Path, device: str):
        self.file, self.begin = file, time.monotonic()
        versions = {name: version_of(name) for name in PACKAGES}
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.content: dict[str, Any] = {
            "machine": machine(device, 1) | {"versions": versions}, "started": started, "finished": False, "results": {},
        }  # fmt: skip
        self._write()

    def add(self, name: str, result: Any) -> None:
        self.content["results"][name] = result
        self._write()

    def finish(self) -> None:
        """Stores that nothing is missing."""
        self.content["finished"] = True
        self._write()

    def _write(self) -> None:
        self.content["seconds"] = round(time.monotonic() - self.begin, 1)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.file, json.dumps(self.content, indent=1) + "\n")
