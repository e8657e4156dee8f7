"""Writes down with which versions the tests were run: python tools/research/record_versions.py LOG OUT.json PYTEST_ARGUMENTS…"""

import importlib.metadata
import json
import platform
import re
import sys
import tomllib
from pathlib import Path

from di4c.engine.run_folder import code_commit

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    log, out, *arguments = sys.argv[1:]
    lines = Path(log).read_text(encoding="utf-8").strip().splitlines()
    content = {
        "command": " ".join(["python -m pytest", *arguments]), "commit": code_commit(), "python": platform.python_version(),
        "machine": f"cpu ({platform.machine()})", "outcome": lines[-1] if lines else "nothing was printed",
        "failed": sorted({line.split()[1] for line in lines if re.match("(FAILED|ERROR) ", line)}), "versions": versions(),
    }  # fmt: skip
    Path(out).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def versions() -> dict[str, dict[str, str]]:
    """{name: {"allowed": range, "tested": installed version}} of every dependency that pyproject.toml declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # no test needs the site
    extras = (names for extra, names in project["optional-dependencies"].items() if extra != "docs")
    declared = [*project["dependencies"], *(name for names in extras for name in names)]
    split = (re.match(r"([\w-]+)(.*)", line).groups() for line in declared)
    return {name: {"allowed": allowed, "tested": importlib.metadata.version(name)} for name, allowed in split}


if __name__ == "__main__":
    main()
