"""Checks this project against numbers that are known.

    python tools/verify.py golden DIR                       a folder of reference cases
    python tools/verify.py theory [--out DIR] [--only a,b]  theorems and estimators by enumeration: lines, plots, a page

A case is NAME.safetensors (tensors "state.…", "in.…", "out.…", "aux64.…") and NAME.json ({"case" or "kind", "config", …}).
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP / "tools" / "research"), str(TOP / "tools"), str(TOP)]

from di4c.command_line import path_argument
from di4c.errors import DataError, Di4CError, SpecError


def golden(folder: Path, only: str = "", verbose: bool = False) -> int:
    """Runs every case of a folder and prints a line a case; 1 if one fails or none could run, else 0.

    The line gives the largest absolute and relative error of the check that comes closest to its tolerance (or exceeds
    it most).
    """
    files = sorted(path for path in folder.glob("*.safetensors") if only in path.stem)
    if not files:
        named = f" with '{only}' in its name" if only else ""
        raise DataError(f"{folder}: no case (NAME.safetensors with NAME.json){named}")
    outcomes = [run_case(path, verbose) for path in files]
    ran = [outcome for outcome in outcomes if outcome is not None]
    print(f"{len(ran)} cases run, {ran.count(False)} failed, {outcomes.count(None)} not run")
    return 0 if ran and all(ran) else 1


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


def run_case(path: Path, verbose: bool) -> bool | None:
    """Runs one case and prints its line; whether all its checks hold, None where its kind is unknown. A case that cannot be computed
    fails."""
    from golden_cases.registered import all_kinds, kind_of

    kinds = all_kinds()
    try:
        tensors, config, name = load_case(path)
        kind = kind_of(name, set(tensors), kinds) or kind_of(path.stem, set(tensors), kinds)
        if kind is None:
            print(f"{path.stem:<32} not run: unknown kind of case '{name}'", flush=True)
            return None
        checks = kind.run(tensors, config)
    except Exception as error:
        if verbose and not isinstance(error, DataError):
            raise
        told = error if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        print(f"{path.stem:<28} FAIL  {told}", flush=True)
        return False
    worst = max(checks, key=lambda check: check.closeness)
    ok = all(check.ok for check in checks)
    print(f"{line(path.stem, worst, ok)}  {len(checks)} checks, closest: {worst.name}", flush=True)
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


def theory(only: list[str], folder: Path | None = None, small: bool = False) -> int:
    """Measures the named claims (all, if none are) and prints a line a statement; 1 if one does not hold, else 0.

    folder: where theory.html, theory.png and theory.json go. small: sizes for a test.
    """
    import torch
    from theory.claims import MODULES, measured
    from theory.report import write

    from di4c.engine.run_folder import code_commit

    unknown = [name for name in only if name not in MODULES]
    if unknown:
        raise SpecError(f"--only: no claim named {', '.join(unknown)}; known: {', '.join(MODULES)}")
    begin, commit, claims = os.times().elapsed, code_commit(), []
    for claim in measured(only or MODULES, small):
        claims.append(claim)
        print(f"{claim.key}: {claim.title}", *(f"  {statement}" for statement in claim.lines), sep="\n", flush=True)
    failed = sum(not statement.ok for claim in claims for statement in claim.lines)
    times = os.times()
    about = {
        "command": "python tools/verify.py theory",
        "commit": commit,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, torch {torch.__version__}",
        "seconds": f"{times.elapsed - begin:.0f}",
        "CPU seconds": f"{times.user + times.system + times.children_user + times.children_system:.0f}",
    }
    if folder is not None:
        print("\n".join(f"wrote {path}" for path in write(claims, folder, about)))
    print(f"{sum(len(claim.lines) for claim in claims)} lines, {failed} failed, {about['seconds']} s")
    return 0 if all(claim.ok for claim in claims) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    case = commands.add_parser("golden", help="reference cases in a folder")
    case.add_argument("folder", type=path_argument)
    case.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains TEXT")
    case.add_argument("--verbose", action="store_true", help="a line a check too")
    laboratory = commands.add_parser("theory", help="theorems and estimators on small spaces")
    laboratory.add_argument("--out", type=path_argument, metavar="DIR", help="folder for theory.html, .png and .json")
    laboratory.add_argument("--only", default="", metavar="NAMES", help="claims, e.g. bound,samplers")
    laboratory.add_argument("--small", action="store_true", help="small sizes: checks the program only")
    arguments = parser.parse_args()
    try:
        if arguments.command == "theory":
            return theory([name for name in arguments.only.split(",") if name], arguments.out, arguments.small)
        return golden(arguments.folder, arguments.only, arguments.verbose)
    except Di4CError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
