"""Checks this project against numbers: `python tools/verify.py golden DIR` runs a folder of reference cases.

A case is NAME.safetensors (tensors "state.…", "in.…", "out.…", "aux64.…") and NAME.json ({"case" or "kind", "config", …}).
"""

import argparse
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from di4c.errors import DataError, Di4CError  # noqa: E402


def golden(folder: Path, only: str = "", verbose: bool = False) -> int:
    """Runs every case of a folder and prints a line a case; 1 if one fails or none could run, else 0.

    The line gives the largest absolute and relative error of the check that comes closest to its tolerance (or exceeds
    it most).
    """
    files = sorted(path for path in folder.glob("*.safetensors") if only in path.stem)
    if not files:
        raise DataError(
            f"{folder}: no case (NAME.safetensors with NAME.json)" + (f" with '{only}' in its name" if only else "")
        )
    from golden_cases.registered import all_kinds, kind_of

    kinds, ran, failed, unknown = all_kinds(), 0, 0, 0
    for path in files:
        try:
            tensors, config, name = load_case(path)
        except DataError as error:
            ran, failed = ran + 1, failed + 1
            print(f"{path.stem:<28} FAIL  {error}", flush=True)
            continue
        kind = kind_of(name, set(tensors), kinds) or kind_of(path.stem, set(tensors), kinds)
        if kind is None:
            unknown += 1
            print(f"{path.stem:<32} not run: unknown kind of case '{name}'", flush=True)
            continue
        ran += 1
        failed += not run_case(path.stem, kind, tensors, config, verbose)
    print(f"{ran} cases run, {failed} failed, {unknown} not run")
    return 1 if failed or not ran else 0


def load_case(path: Path) -> tuple[dict, dict, str]:
    """(tensors, config, kind name) of a case file; DataError where it or its .json is absent or cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = path.with_suffix(".json")
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        name = content.get("kind") or content.get("case") or path.stem
        return load_file(str(path)), content.get("config", {}), str(name)
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise DataError(f"{description.name} or {path.name} cannot be read: {error}") from error


def run_case(name: str, kind, tensors: dict, config: dict, verbose: bool) -> bool:
    """Runs one case and prints its line; whether all its checks hold. A case that cannot be computed fails."""
    try:
        checks = kind.run(tensors, config)
    except Exception as error:
        if verbose:
            raise
        print(f"{name:<28} FAIL  {type(error).__name__}: {error}", flush=True)
        return False
    worst = max(checks, key=lambda check: check.closeness)
    ok = all(check.ok for check in checks)
    print(f"{line(name, worst, ok)}  {len(checks)} checks, closest: {worst.name}", flush=True)
    if verbose:
        for check in checks:
            print(line("  " + check.name, check, check.ok), flush=True)
        print(f"  not compared: {', '.join(not_compared(tensors, checks)) or 'nothing'}", flush=True)
    return ok


def not_compared(tensors: dict, checks: list) -> list[str]:
    """The case's results that no check is about."""
    told = " ".join(check.name for check in checks)
    results = [name for name in tensors if name.startswith(("out.", "aux64."))]
    return [name for name in results if name.partition(".")[2] not in told]


def line(name: str, check, ok: bool) -> str:
    """One line: name, the largest errors, the tolerance, the verdict."""
    errors = f"absolute {check.absolute:.2e}  relative {check.relative:.2e}"
    return f"{name:<28} {errors}  tolerance {check.tolerance:.0e} {check.measure:<11} {'ok' if ok else 'FAIL'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    case = commands.add_parser("golden", help="reference cases in a folder")
    case.add_argument("folder", type=Path)
    case.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains TEXT")
    case.add_argument("--verbose", action="store_true", help="a line a check too")
    arguments = parser.parse_args()
    try:
        return golden(arguments.folder, arguments.only, arguments.verbose)
    except Di4CError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
