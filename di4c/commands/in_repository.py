"""Commands whose cases and measurements stay in the repository: a checkout runs them from its tools/, a wheel says where they are."""

import runpy
import sys
from pathlib import Path

import di4c
from di4c.errors import Di4CError

TOP = Path(di4c.__file__).resolve().parents[1]


def main(arguments: list[str], prog: str) -> None:
    """Runs tools/NAME.py of the checkout that this package is imported from, as `python tools/NAME.py` would; prog: "di4c NAME"."""
    name = prog.split()[-1]
    script = TOP / "tools" / f"{name}.py"
    if not (TOP / "pyproject.toml").is_file() or not script.is_file():
        raise Di4CError(
            f"{prog}: its cases stand in the repository, not in the wheel; in a checkout of di4c {di4c.__version__} run python tools/{name}.py"
        )
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")
