"""What README and docs/ hold: code blocks with what is said of them, links, headings."""

import argparse
import contextlib
import importlib
import io
import itertools
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "tools/results/README.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
)
BLOCK = re.compile(
    r"(?:<!-- (?P<key>file|before|after): (?P<name>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)]*))?\)")
OTHERS = {"git", "pip", "mkdocs", "cd"}
"""Commands that are not this project's."""


@dataclass(frozen=True)
class Block:
    """A code block. file: the name under which a reader keeps it, or None; after: "training" if it uses what the page has trained."""

    language: str
    text: str
    file: str | None = None
    after: str | None = None

    def __str__(self) -> str:
        return (self.file or self.text.strip().splitlines()[-1])[:40]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The code blocks of a page, in their order."""
    found = [
        Block(
            m["language"],
            m["text"],
            m["name"] if m["key"] == "file" else None,
            m["name"] if m["key"] == "after" else None,
        )
        for m in BLOCK.finditer(text_of(page))
    ]
    return [block for block in found if language in (None, block.language)]


def files(page: str) -> dict[str, str]:
    """{name: text} of what a page tells its reader to keep."""
    return {block.file: block.text for block in blocks(page) if block.file}


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as links write them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


class Parsed(BaseException):
    """Ends a command once its arguments are understood."""


def check_command(words: list[str]) -> None:
    """Raises AssertionError unless a command of a page exists and takes these arguments; nothing is run."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    missing = [word for word in words if re.match(r"(tools|tests|docs)/", word) and not (ROOT / word).exists()]
    assert not missing, f"no such file: {missing}"
    script = next((i for i, word in enumerate(words) if word.startswith("tools/") and word.endswith(".py")), None)
    if words[0] == "di4c" or words[:3] == ["python", "-m", "di4c"]:
        from di4c.__main__ import COMMANDS

        name, *arguments = words[1:] if words[0] == "di4c" else words[3:]
        assert name in COMMANDS, words
        _parse(words, importlib.import_module(f"di4c.commands.{COMMANDS[name][0]}").main, arguments)
    elif script is not None:
        assert words[0] in ("python", "deepspeed", "srun"), words
        with mock.patch.object(sys, "path", [str((ROOT / words[script]).parent), *sys.path]):
            main = runpy.run_path(str(ROOT / words[script]), run_name="documented")["main"]
            _parse(words, main, words[script + 1 :])
    elif words[0] in ("bash", "source"):
        told = (ROOT / words[1]).read_text(encoding="utf-8")
        unknown = [word for word in words if word.startswith("--") and word not in told]
        assert not unknown, f"{words[1]} has no {unknown}"
    else:
        assert words[0] in OTHERS or words[:3] == ["python", "-m", "pytest"], f"an unknown command: {words}"


def commands(block: Block) -> list[list[str]]:
    """The words of every command of a bash block, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    parts = [
        part
        for line in lines
        for part in " ".join(shlex.quote(w) if w != "&&" else w for w in shlex.split(line, comments=True)).split(" && ")
    ]
    return [shlex.split(part) for part in parts if part]


def options(words: list[str], name: str) -> list[str]:
    """The values of a repeatable option."""
    return [value for option, value in itertools.pairwise(words) if option == name]


def _parse(words: list[str], main, arguments: list[str]) -> None:
    parse = argparse.ArgumentParser.parse_args

    def understood(parser, args=None, namespace=None):
        parse(parser, arguments, namespace)
        raise Parsed

    said = io.StringIO()
    with mock.patch.object(argparse.ArgumentParser, "parse_args", understood), contextlib.redirect_stderr(said):
        try:
            main()
        except Parsed:
            return
        except SystemExit:
            raise AssertionError(f"{shlex.join(words)}: {said.getvalue().strip().splitlines()[-1]}") from None
    raise AssertionError(f"{shlex.join(words)}: parses no arguments")
