"""Prints what is missing, or of another version than tools/constraints.txt pins; exit code 0 if nothing is."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    wrong = [line for line in (_wrong(pin) for pin in _pins()) if line]
    if not _is_this_checkout("di4c", ROOT / "di4c") or not _is_this_checkout("di4c_plugins", ROOT / "plugins"):
        wrong.append(f"di4c is not installed from {ROOT}")
    print("\n".join(wrong))
    return 1 if wrong else 0


def _pins() -> list[str]:
    lines = (ROOT / "tools" / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _wrong(pin: str) -> str | None:
    name, _, version = pin.partition("==")
    try:
        found = importlib.metadata.version(name).partition("+")[0]  # 2.13.0+cpu is 2.13.0
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed"
    return None if found == version else f"{name} is {found}, not {version}"


def _is_this_checkout(package: str, folder: Path) -> bool:
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() not in (ROOT, ROOT / "tools")]
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent == folder


if __name__ == "__main__":
    sys.exit(main())
