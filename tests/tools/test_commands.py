"""Every command with odd arguments: exit code 0 or one line, never a traceback."""

import importlib
import sys
from pathlib import Path

import pytest

from di4c import command_line
from tests.config.specs import DISTILL, changed, written
from tests.evaluation.conftest import PRETRAIN, write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_tool(monkeypatch, capfd):
    """run_tool(name, *arguments) → (exit code, lines on stderr)."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))

    def leave(code):
        sys.exit(code)

    monkeypatch.setattr(command_line, "leave", leave)

    def run(name, *arguments):
        module = importlib.import_module("di4c.__main__" if name == "di4c" else f"tools.{name}")
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        try:
            code = module.main()
        except SystemExit as ended:
            code = ended.code
        return code or 0, capfd.readouterr().err.strip().splitlines()

    return run


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """{kind: path} of what is no run, no spec, no result."""
    top = tmp_path_factory.mktemp("odd")
    (top / "folder").mkdir()
    for name, content in {
        "empty": b"",
        "binary": bytes(range(256)),
        "text": b"a: b: c\n",
        "null": b"null",
        "list": b"[1]",
        "object": b'{"rows": 3}',
    }.items():
        (top / name).write_bytes(content)
    (top / "loop").symlink_to("loop")
    broken = write_run(top / "broken", PRETRAIN)
    (broken / "export/config.json").write_text('{"format": 3}')
    return {path.name: path for path in top.iterdir() if not path.is_symlink()} | {"loop": top / "loop", "absent": top / "absent", "long": top / ("x" * 300),
            "zero": "a\0b", "home": "~nobody-here/x", "nothing": ""}  # fmt: skip


COMMANDS = {
    "di4c check": lambda path, out: ("di4c", "check", path),
    "di4c plan": lambda path, out: ("di4c", "plan", path),
    "di4c list": lambda path, out: ("di4c", "list", "--plugin", f"{path}/x.py"),
    "train": lambda path, out: ("train", "--spec", path),
    "di4c train": lambda path, out: ("di4c", "train", "--spec", path),
    "di4c sample": lambda path, out: ("di4c", "sample", "--run", path, "--steps", 1, "--out", out),
    "di4c verify": lambda path, out: ("di4c", "verify", "golden", path),
    "di4c new": lambda path, out: ("di4c", "new", "teacher", path),
    "eval": lambda path, out: ("eval", "--run", path, "--out", out),
    "sample": lambda path, out: ("sample", "--run", path, "--steps", 1, "--out", out),
    "advise": lambda path, out: ("advise", "--run", path),
    "significance": lambda path, out: ("significance", path, "--judged", "a", "--guarded", "b", "--about", "c", "--out", out),
    "chain": lambda path, out: ("chain", "--collect", path, "--out", out),
    "ablate": lambda path, out: ("ablate", "--grid", path, "--out", out),
    "verify": lambda path, out: ("verify", "golden", path),
    "import_student": lambda path, out: ("import_student", "--spec", path, "--out", out),
    "side_by_side": lambda path, out: ("side_by_side", f"a={path}", "--out", out),
    "smiles_tokenizer": lambda path, out: ("smiles_tokenizer", path),
}  # fmt: skip
KINDS = (
    "folder",
    "empty",
    "binary",
    "text",
    "null",
    "list",
    "object",
    "broken",
    "loop",
    "absent",
    "long",
    "zero",
    "home",
    "nothing",
)


def is_told(code: int, lines: list[str]) -> bool:
    return code != 0 and bool(lines) and not any("Traceback" in line for line in lines) and "error: " in lines[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_input_is_told(command, odd, run_tool, tmp_path):
    for kind in KINDS:
        code, lines = run_tool(*COMMANDS[command](odd[kind], tmp_path / "out"))
        assert is_told(code, lines), (kind, code, lines)


ARGUMENTS = [
    ("sample", "--run", "R", "--steps", "1", "--num", "0", "--out", "o"),
    ("sample", "--run", "R", "--steps", "1", "--num", "2", "--out", "o", "--device", "warp"),
    ("sample", "--run", "R", "--steps", "1", "--num", "2", "--out", "o", "--seed", "1.5"),
    ("sample", "--run", "R", "--steps", "1", "--num", "2", "--out", "o", "--prefix", "a"),
    ("sample", "--run", "R", "--steps", "1", "--num", "2", "--out", "o", "--label", "99"),
    ("sample", "--run", "R", "--steps", "1", "--num", "2", "--out", "o", "--mixture-size", "x"),
    ("sample", "--run", "R", "--steps", "1", "--num", "2", "--out", "F/o"),
    ("sample", "--run", "R", "--steps", "1", "--num", "2", "--out", "o", "--set", "train.steps=3"),
    ("sample", "--run", "R", "--steps", "1", "--num", "2", "--out", "o", "--set", "eval.sampler=nope"),
    ("eval", "--run", "R", "--out", "F"),
    ("eval", "--run", "R", "--out", "F/x"),
    ("eval", "--run", "R", "--out", "o", "--also", "../x=R"),
    ("eval", "--run", "R", "--out", "o", "--also", "x"),
    ("eval", "--run", "R", "--out", "o", "--also", "a=R", "--also", "a=R"),
    ("eval", "--run", "R", "--out", "o", "--metrics", "nope"),
    ("eval", "--run", "R", "--out", "o", "--metrics", ","),
    ("eval", "--run", "R", "--out", "o", "--mixture-sizes", "0"),
    ("eval", "--run", "R", "--out", "o", "--steps", "1,,2"),
    ("eval", "--run", "R", "--out", "o", "--every-run"),
    ("advise", "--run", "R"),
    ("advise", "--run", "R", "--sizes", "a"),
    ("advise", "--run", "R", "--repeats", "1"),
    ("advise", "--run", "R", "--tolerance", "nan"),
    ("train", "--spec", "S", "--set", "train.run=F"),
    ("train", "--spec", "S", "--set", "train.run=F/x"),
    ("train", "--spec", "S", "--set", "train.run=R"),
    ("train", "--spec", "S", "--set", "seed=-1"),
    ("di4c", "check", "S", "--set", "seed"),
    ("di4c", "check", "digits-techer"),
    ("di4c", "train", "--spec", "S", "--num-gpus", "0"),
    ("di4c", "train", "--spec", "S", "--num-gpus", "2", "--set", "seed=-1"),
    ("di4c", "eval", "--run", "R", "--out", "o", "--metrics", "nope"),
    ("di4c", "new", "teacher", "mdlm"),
    ("di4c", "new", "backbone", "mine"),
    ("di4c", "new", "teacher", "mine", "--folder", "F"),
    ("di4c", "bench", "nothing"),
    ("di4c", "trian"),
    ("di4c", "plan", "S", "--gpus", "0"),
    ("di4c", "plan", "S", "--gpu-memory", "much"),
    ("di4c", "list", "nothing"),
    ("chain", "text-small", "--seed", "-1"),
    ("significance", "F", "--judged", "a", "--guarded", "b", "--about", "c", "--out", "o", "--cpu-seconds", "x"),
    ("significance", "F", "--judged", "a", "--guarded", "b", "--about", "c", "--out", "o", "--steps", "x"),
    ("verify", "theory", "--only", "nope"),
    ("side_by_side", "a=P", "--columns", "0", "--out", "o"),
    ("side_by_side", "a=P", "--scale", "nan", "--out", "o"),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    from PIL import Image

    top = tmp_path_factory.mktemp("good")
    (top / "file").write_text("x")
    Image.new("RGB", (4, 4)).save(top / "p.png")
    return {
        "R": write_run(top / "run", PRETRAIN),
        "F": top / "file",
        "P": top / "p.png",
        "S": written(top, changed(DISTILL, train__run=str(top / "new"))),
    }


def test_odd_arguments_are_told(good, run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, *arguments in ARGUMENTS:
        told = [f"{good[a[0]]}{a[1:]}" if a[:1] in good and a[1:2] in ("", "/") else a for a in arguments]
        told = [
            f"{a.partition('=')[0]}={good[a[-1]]}" if "=" in a and a[-1] in "RFP" and a[-2] == "=" else a for a in told
        ]
        code, lines = run_tool(name, *(a.replace("=F/", f"={good['F']}/") for a in told))
        assert is_told(code, lines), (name, arguments, code, lines)


def test_trouble_10_two_outs_are_two_files(good, run_tool, tmp_path):
    for out in ("g-1.5", "g-1.7", "x.png"):
        code, lines = run_tool(
            "sample", "--run", good["R"], "--steps", 1, "--num", 2, "--out", tmp_path / out, "--device", "cpu"
        )
        assert code == 0, lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g-1.5.png", "g-1.7.png", "x.png"]


def test_trouble_11_every_path_of_the_command_line(good, run_tool, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(good["R"].parent))
    sampled = ("sample", "--run", "~/run", "--steps", 1, "--num", 2, "--device", "cpu", "--out")
    assert run_tool(*sampled, "~/a")[0] == 0 and (good["R"].parent / "a.png").is_file()
    assert run_tool("side_by_side", "a=~/p.png", "--out", "~/b")[0] == 0 and (good["R"].parent / "b.png").is_file()
    assert run_tool("di4c", "check", "~/spec.yaml")[0] == 0
    assert is_told(*run_tool("train", "--spec", "~/spec.yaml", "--set", "train.run=~/run"))
    assert "already holds a run" in run_tool("train", "--spec", "~/spec.yaml", "--set", "train.run=~/run")[1][-1]
    assert run_tool("eval", "--run", "~/run", "--out", "~/report", "--also", "again=~/run", "--steps", "1", "--samples", "4", "--seeds", "1",
                    "--metrics", "pairwise", "--device", "cpu")[0] == 0  # fmt: skip
    assert (good["R"].parent / "report/eval.json").is_file()
