"""Prints what is missing, or of another version than tools/constraints.txt pins; exit code 0 if nothing is."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    pins = (ROOT / "tools" / "constraints.txt").read_text().splitlines()
    wrong = [told for pin in pins if pin and not pin.startswith("#") and (told := _wrong(pin))]
    found = _folder("di4c")
    if found != ROOT / "di4c" or _folder("di4c_plugins") != ROOT / "plugins":
        other = f"; this environment's now comes from {found.parent}, and will come from here" if found else ""
        wrong.append(f"di4c is not installed from {ROOT}{other}")
    print("\n".join(wrong))
    return 1 if wrong else 0


def _wrong(pin: str) -> str | None:
    name, _, version = pin.partition("==")
    try:
        found = importlib.metadata.version(name).partition("+")[0]  # 2.13.0+cpu is 2.13.0
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed"
    return None if found == version else f"{name} is {found}, not {version}"


def _folder(package: str) -> Path | None:
    """Where the installed package lies; None if there is none."""
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() not in (ROOT, ROOT / "tools")]
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent


if __name__ == "__main__":
    sys.exit(main())
