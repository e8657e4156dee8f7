"""Trains one of the small systems from its data to its verdict: python tools/chain.py text-small --set data.path=FOLDER

Every spec of the chain in turn (tokenizer, teacher, student, and with --control the one-component student), the evaluation, the verdict;
all in --runs (runs/NAME-SEED), with chain.json, the wall-clock and CPU seconds of every part. Interrupted, it goes on where it was.
`--collect RUNS… --out FILE` puts the verdicts of finished chains into one file.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from di4c.command_line import command as reported
from di4c.command_line import number, path_argument
from di4c.errors import DataError
from di4c.files import read_json

TOOLS = Path(__file__).resolve().parent
CONTROL = "one-component"
ABOUT = (
    "Teacher minus student in the judged metric, mean over training seeds and their range; ± the largest spread over 3 sampling seeds. "
    "The whole chain of a seed, on one thread: data to verdict, the evaluation included."
)


class Chain(NamedTuple):
    """parts: of tools/specs/NAME-PART.yaml, in order; judged, guarded: the metrics of tools/significance.py; settings: of a part, with {runs}."""

    parts: tuple[str, ...]
    judged: str
    guarded: str
    settings: dict[str, tuple[str, ...]]


DISTILLED = {"student": ("teacher.run={runs}/teacher",), CONTROL: ("teacher.run={runs}/teacher",)}
CODES = ("data.tokenizer.path={runs}/tokenizer", "data.cache={runs}/codes")
CHAINS = {
    "text-small": Chain(("teacher", "student"), "lagged_pair_tv", "ngram_tv", DISTILLED),
    "fashion14": Chain(("teacher", "student"), "pair_tv", "frechet_distance", DISTILLED),
    "fashion-vq": Chain(
        ("tokenizer", "teacher", "student"), "pair_tv", "decoded_frechet_distance",
        {"teacher": CODES, "student": CODES + DISTILLED["student"], CONTROL: CODES + DISTILLED[CONTROL]},
    ),
}  # fmt: skip


@reported
def main() -> None:
    arguments = _arguments()
    if arguments.collect:
        collect(arguments.collect, arguments.out, arguments.note)
    else:
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Trains, evaluates and checks one chain."""
    chain, runs = CHAINS[arguments.name], Path(arguments.runs or f"runs/{arguments.name}-{arguments.seed}")
    parts = chain.parts + ((CONTROL,) if arguments.control else ())
    for part in parts:
        timed(runs, part, training(arguments, part, runs))
    also = ["--also", f"{CONTROL}={runs}/{CONTROL}"] if arguments.control else []
    report = runs / ("report-control" if arguments.control else "report")
    timed(runs, report.name, ["eval", "--run", runs / "student", *also, "--out", report])
    about = f"{arguments.name}, training seed {arguments.seed}."
    judged = ["--judged", chain.judged, "--guarded", chain.guarded, "--about", about]
    files = ["--seconds", runs / "chain.json", "--out", runs / "verdict.json"]
    command(["significance", report / "eval.json", *judged, *files])


def collect(folders: list[Path], file: Path, note: str) -> None:
    """Writes {"about", "runs": [{"system", "seed", "commit", "seconds": {part: {"wall", "cpu"}}, "verdict"}]}."""
    found = []
    for folder in folders:
        judged = read_json(folder / "verdict.json", {"commit": str | None, "seconds": dict, "verdict": dict})
        system, _, seed = folder.name.rpartition("-")
        if not seed.isdecimal() or "parts" not in judged["seconds"]:
            raise DataError(f"{folder}: no folder NAME-SEED of a finished chain")
        found.append({
            "system": system, "seed": int(seed), "commit": judged["commit"], "seconds": judged["seconds"]["parts"],
            "verdict": judged["verdict"],
        })  # fmt: skip
    file.write_text(json.dumps({"about": f"{ABOUT} {note}".strip(), "runs": found}, indent=1) + "\n", encoding="utf-8")


def training(arguments: argparse.Namespace, part: str, runs: Path) -> list:
    """The command that trains a part. --set data.path goes to the images where a spec's data are their codes."""
    own = CHAINS[arguments.name].settings.get(part, ())
    below = "data.dataset." if CODES[0] in own else "data."
    settings = [f"seed={arguments.seed}", f"train.run={runs}/{part}", *(setting.format(runs=runs) for setting in own)]
    settings += [re.sub(r"^data\.", below, given) for given in arguments.set]
    spec = TOOLS / f"specs/{arguments.name}-{part}.yaml"
    return ["train", "--resume", "--spec", spec, *(word for setting in settings for word in ("--set", setting))]


def timed(runs: Path, part: str, words: list) -> None:
    """Runs a part and adds its seconds to what runs/chain.json holds of it."""
    file = runs / "chain.json"
    stored = read_json(file, {"parts": dict}) if file.exists() else {"cpu_count": os.cpu_count(), "parts": {}}
    before = os.times()
    command(words)
    after = os.times()
    wall = after.elapsed - before.elapsed
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    known = stored["parts"].get(part, {"wall": 0.0, "cpu": 0.0})
    stored["parts"][part] = {"wall": round(known["wall"] + wall, 1), "cpu": round(known["cpu"] + cpu, 1)}
    file.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    print(f"{part}: {wall:.0f} s, of CPU {cpu:.0f} s", flush=True)


def command(words: list) -> None:
    """Runs one of the tools beside this one, on one thread unless OMP_NUM_THREADS says otherwise; its failure is ours."""
    tool, *rest = map(str, words)
    code = subprocess.call([sys.executable, TOOLS / f"{tool}.py", *rest], env={"OMP_NUM_THREADS": "1"} | os.environ)
    if code:
        sys.exit(code)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=CHAINS)
    parser.add_argument(
        "--seed", type=number(0), default=0, help="of the training (0); the evaluation has seeds of its own"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="in every spec, e.g. data.path=FOLDER"
    )
    parser.add_argument("--control", action="store_true", help="also train the one-component student, and compare it")
    parser.add_argument("--runs", type=path_argument, help="the folder of the runs (runs/NAME-SEED)")
    parser.add_argument(
        "--collect", nargs="+", type=path_argument, metavar="RUNS", help="folders NAME-SEED of finished chains"
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        default=Path("tools/results/small-seeds.json"),
        help="the file that --collect writes",
    )
    parser.add_argument("--note", default="", help="what else the collected file says of itself")
    arguments = parser.parse_args()
    if (arguments.name is None) != bool(arguments.collect):
        parser.error("give the name of a chain, or --collect and its folders")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
