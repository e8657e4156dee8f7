"""di4c COMMAND …, the same as python -m di4c COMMAND …: finds the command's module and hands it the rest of the line."""

import argparse
import importlib
import sys

import di4c
from di4c.command_line import command

COMMANDS = {
    "train": ("start", "train what a spec describes: a teacher, a student or a tokenizer"),
    "eval": ("evaluate", "compare a run with its teacher: a table, plots and a report"),
    "sample": ("sample", "draw samples of a trained model"),
    "plan": ("plan", "estimate memory and FLOPs of a spec, and what fits"),
    "check": ("check", "validate a spec: every key, name and option"),
    "list": ("list", "print the names of all parts, or of the specs that come with di4c"),
    "new": ("new", "write a plugin to start from, with a spec and a test that passes"),
    "advise": ("advise", "how many components a trained student needs"),
    "verify": ("in_repository", "check this project against numbers that are known (in the repository)"),
    "bench": ("in_repository", "measure time and memory (in the repository)"),
}
"""Name → module of di4c.commands, and what the command does."""


@command
def main(arguments: list[str] | None = None) -> int | None:
    parser = _parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(arguments)
    module = importlib.import_module(f"di4c.commands.{COMMANDS[options.command][0]}")
    return module.main(options.arguments, prog=f"di4c {options.command}")


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<8} {does}" for name, (_, does) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="di4c", usage="di4c COMMAND …", description=di4c.__doc__.splitlines()[0],
        epilog="\n".join(["commands:", *lines, "", "di4c COMMAND --help tells a command's options."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"di4c {di4c.__version__}")
    # deepspeed --module di4c puts it first
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
