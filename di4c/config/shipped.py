"""The specs that come with this package, tools/specs of the repository, found by their names."""

from pathlib import Path

from di4c.config.suggest import suggestion
from di4c.errors import SpecError
from di4c.paths import is_plain_name, user_path

COMMANDS = ("di4c ", "deepspeed ", "python ", "--")
"""How a comment begins that is a command, or the rest of one."""

FOLDER = Path(__file__).parent.parent / "specs"


def shipped_specs() -> dict[str, Path]:
    """{name: file} of the shipped specs."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def spec_path(given: str | Path) -> Path:
    """The file of a spec that is named by its path, or by the name of a shipped one; a file of that name in the current folder wins.

    Raises SpecError for a name that is neither, with the shipped names that are like it.
    """
    path = user_path(given)
    if path.suffix or not is_plain_name(str(given)) or path.is_file():
        return path
    shipped = shipped_specs()
    if str(given) in shipped:
        return shipped[str(given)]
    if path.exists():
        return path  # a folder, say: the reader tells what it found
    raise SpecError(f"{given}: no such file, and no spec of that name comes with di4c.{suggestion(given, shipped)}")


def about(path: Path) -> str:
    """The first comment of a shipped spec that is no command: what it trains, on what."""
    lines = [
        line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ]
    return next((line for line in lines if not line.startswith(COMMANDS)), "")
