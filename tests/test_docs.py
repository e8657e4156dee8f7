"""README and docs/: every code block is run or checked, every link leads somewhere, what is written by commands is current."""

import contextlib
import re
import runpy
import sys

import pytest
import torch
import yaml

from di4c.config.check import check
from di4c.config.registry import Registry
from di4c.config.spec import Spec, read_spec
from di4c.contracts import merged
from tests.documents import LINK, PAGES, ROOT, anchors, blocks, check_command, commands, files, options, text_of
from tests.engine.launching import launch
from tests.evaluation.conftest import PRETRAIN as DIGITS
from tests.evaluation.conftest import distill, write_run
from tools.ablation.grid import read_grid, trials

USED = ("README.md", "docs/getting-started.md", "docs/extending.md")
"""The pages whose Python runs and whose specs train."""
TINY = [
    "train.steps=2", "train.batch_size=4", "train.schedule.warmup=0", "train.checkpoint_every=0", "train.diagnostics_every=0",
]  # fmt: skip
TINY_EVAL = ["eval.samples=8", "eval.seeds=1", "eval.batch_size=8", "eval.steps=[1]"]
WORDS = "the state of the union is strong and our people ask this house for work and peace. "
STATES = 28
"""Letters, space and document end, of `normalise: letters`."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{page: a reader's folder, outside the repository, with the files that the page tells to keep and the data it is about}."""
    made = {}
    for page in USED:
        folder = made[page] = tmp_path_factory.mktemp("reader")
        for name, text in files(page).items():
            (folder / name).write_text(text)
        (folder / "my-texts").mkdir()
        (folder / "my-texts/a.txt").write_text(WORDS * 60)
    teacher = write_run(made["README.md"] / "teacher", DIGITS)
    write_run(made["README.md"] / "runs/demo/student", distill(teacher))
    lightning_checkpoint(made["docs/extending.md"])
    with importable(*made.values()):
        yield made


@contextlib.contextmanager
def importable(*folders):
    """The folders on sys.path; what else is put there meanwhile stays."""
    added = [str(folder) for folder in folders]
    sys.path[:0] = added
    yield
    for folder in added:
        sys.path.remove(folder)


def lightning_checkpoint(folder) -> None:
    """last.ckpt of the page's network as MDLM's code writes it: prefixes, an entry of a metric, averaged weights without names."""
    network = runpy.run_path(str(folder / "their_code.py"))["DIT"](STATES + 1, 16)
    state = {f"backbone._orig_mod.{name}": value for name, value in network.state_dict().items()}
    shadows = [torch.full_like(parameter, 0.01) for parameter in network.parameters()]
    content = {
        "state_dict": state | {"valid_metrics.nll.weight": torch.zeros(())},
        "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": shadows},
        "global_step": 7,
    }
    torch.save(content, folder / "last.ckpt")


@pytest.fixture(scope="module")
def trained(folders):
    """The specs of the pages, trained for two steps each in one process."""
    start, extending = str(folders["docs/getting-started.md"]), str(folders["docs/extending.md"])
    student = yaml.safe_load(files("docs/extending.md")["teacher.yaml"]) | {
        "task": "distill", "teacher": {"name": "mlp", "run": "runs/mlp"}, "student": {"head": {"name": "readout", "rank": 4}},
        "latent": "uniform",
        "objective": {
            "components": 2, "sampler": "ancestral", "time": {"name": "uniform"},
            "data": {"weight": 1.0, "estimator": "monte-carlo", "gate": {"shape": "constant", "scale": 1.0}},
        },
        "eval": {"sampler": "ancestral", "metrics": ["entropy"], "steps": [1], "samples": 8, "seeds": 1, "batch_size": 8},
    }  # fmt: skip
    student["train"]["run"] = "runs/student"
    (folders["docs/extending.md"] / "student.yaml").write_text(yaml.safe_dump(student))
    jobs = [
        {"folder": start, "spec": "my-teacher.yaml", "set": TINY},
        {"folder": start, "spec": "my-student.yaml", "set": [*TINY, *TINY_EVAL]},
        {"folder": extending, "spec": "my-port.yaml", "set": TINY},
        {"folder": extending, "spec": "teacher.yaml", "set": TINY},
        {"folder": extending, "spec": "student.yaml", "set": TINY},
        {"folder": extending, "evaluate": "runs/student"},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DI4C_CACHE", start + "/cache")
        results, text = launch(jobs, module="tests.documents_worker")
    assert all(results), text
    return folders


def run_python(page: str, folder, monkeypatch, *, trained: bool) -> dict:
    """Runs the page's Python blocks, in their order, in one namespace; those alone that do or do not need what the page trains."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DI4C_CACHE", str(folder / "cache"))
    names: dict = {"__name__": "reader"}
    for block in blocks(page, "python"):
        if block.file is None and (block.after == "training") == trained:
            exec(compile(block.text, f"{page}: {block}", "exec"), names)
    return names


def test_the_readmes_python_runs(folders, monkeypatch):
    names = run_python("README.md", folders["README.md"], monkeypatch, trained=False)
    assert names["tokens"].shape == (64, 64) and len(names["images"]) == 64


def test_every_kind_has_an_example_that_holds_its_contract(folders, monkeypatch):
    names = run_python("docs/extending.md", folders["docs/extending.md"], monkeypatch, trained=False)
    from di4c import testing

    assert set(testing.__all__) - {"affine_logits"} <= set(names), set(testing.__all__) - set(names)


def test_a_lightning_checkpoint_becomes_a_teacher_with_its_averaged_weights_then_a_student(trained, monkeypatch):
    folder = trained["docs/extending.md"]
    monkeypatch.chdir(folder)
    kept = files("docs/extending.md")
    lines = [line for name in ("my_port.py", "my-port.yaml") for line in kept[name].splitlines() if line.strip()]
    assert len(lines) < 40
    import di4c

    student = di4c.load("runs/my-port", device="cpu")
    assert student.sample(2, steps=2, seed=0).shape == (2, 16)
    teacher = student.teacher().network
    assert (
        all(torch.equal(p, torch.full_like(p, 0.01)) for p in teacher.parameters())
        and len(list(teacher.parameters())) > 4
    )
    assert "last.ckpt" not in (folder / "runs/my-port/export/config.json").read_text()


def test_a_teacher_outside_the_repository_trains_is_distilled_and_evaluated(trained):
    """A user's own file, named in `plugins:`; nothing under di4c/ or plugins/ knows of it."""
    folder = trained["docs/extending.md"]
    assert len([line for line in files("docs/extending.md")["my_teacher.py"].splitlines() if line.strip()]) <= 30
    assert (folder / "report/eval.json").is_file() and (folder / "report/report.html").is_file()


def test_getting_started_ends_with_samples(trained, monkeypatch, capsys):
    folder = trained["docs/getting-started.md"]
    names = run_python("docs/getting-started.md", folder, monkeypatch, trained=True)
    assert names["tokens"].shape == (16, 16) and len(capsys.readouterr().out.splitlines()) >= 16


YAMLS = [(page, block) for page in PAGES for block in blocks(page, "yaml")]
GRIDS = [(page, block) for page, block in YAMLS if "rows" in yaml.safe_load(block.text)]
SPECS = [case for case in YAMLS if case not in GRIDS]


@pytest.mark.parametrize(("page", "block"), GRIDS, ids=str)
def test_every_grid_is_valid(page, block, tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(block.text)
    assert trials(read_grid(file), None, file, tmp_path / "out")


@pytest.mark.parametrize(("page", "block"), SPECS, ids=str)
def test_every_spec_is_valid(page, block, folders, monkeypatch):
    """A part of a spec is checked within the digits' student."""
    folder = folders.get(page)
    if folder is not None:
        monkeypatch.chdir(folder)
    values = yaml.safe_load(block.text)
    if "task" not in values:
        base = yaml.safe_load((ROOT / "tools/specs/digits-student.yaml").read_text())
        for key, value in values.items():  # a part that names another one replaces it whole
            base = base | {key: value} if isinstance(value, dict) and "name" in value else merged(base, {key: value})
        values = base
    spec = Spec.from_dict(values, folder=folder)
    assert check(spec, Registry.default(spec.plugins))


COMMANDS = [(page, words) for page in PAGES for block in blocks(page, "bash") for words in commands(block)]


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60]
)
def test_every_command_exists_and_takes_its_arguments(page, words, folders, monkeypatch):
    check_command(words)
    for spec in options(words, "--spec"):
        if not spec.isupper():
            monkeypatch.chdir(folders.get(page, ROOT) if not spec.startswith("tools/") else ROOT)
            read_spec(spec, options(words, "--set"))


def test_no_block_escapes():
    """Blocks are Python, specs, commands, or say by having no language that they are pictures of something."""
    languages = {(page, block.language) for page in PAGES for block in blocks(page)} - {("README.md", "bibtex")}
    assert {language for _, language in languages} == {"python", "yaml", "bash", ""}
    assert all(page in USED for page in PAGES if blocks(page, "python"))
    assert all(text_of(page).count("\n```") == 2 * len(blocks(page)) for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    here = (ROOT / page).parent
    for link, anchor in LINK.findall(text_of(page)):
        target = (here / link).resolve() if link else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.relative_to(ROOT))), f"{link}#{anchor}"


def test_pages_name_no_missing_file():
    """What stands in backticks like a path of the repository is one."""
    for page in PAGES:
        if page == "docs/spec-reference.md":
            continue
        for path in re.findall(r"`((?:di4c|plugins|tools|tests|docs)/[\w./-]+)`", text_of(page)):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_the_readme_is_short_and_names_the_test_command():
    assert len(text_of("README.md").splitlines()) <= 130
    assert "bash tools/test.sh" in text_of("README.md")


@pytest.fixture(scope="module")
def reference():
    with importable(ROOT / "tools/documents"):
        import write_spec_reference

        yield write_spec_reference


def test_the_spec_reference_is_current(reference):
    assert text_of("docs/spec-reference.md") == reference.reference(), (
        "run python tools/documents/write_spec_reference.py"
    )


def test_every_key_of_a_spec_is_explained_and_every_meaning_has_a_key(reference):
    rows = {heading: list(reference.rows_of(heading, cls)) for heading, cls in reference.SECTIONS.items()}
    registry = reference.Registry.default()
    for kind in reference.KINDS:
        for name in (target.name for target in registry.targets(kind)):
            rows[f"{kind} {name}"] = reference.options_of(kind, name, registry.resolve(kind, name))
    keys = {place: {row.key for row in found} for place, found in rows.items()} | {
        "any": set(reference.MEANINGS["any"])
    }
    missing = [f"{place}: {row.key}" for place, found in rows.items() for row in found if not row.meaning]
    assert not missing, "add them to tools/documents/spec_meanings.yaml, or to the docstring of their class"
    assert all(meant.keys() <= keys.get(place, set()) for place, meant in reference.MEANINGS.items()), "no such key"


def test_meanings_are_read_from_docstrings(reference):
    marked, mentioned = reference.meanings(
        "A class. size: how big; a, b (of two): both.\n\nIt `turns` left. Raises SpecError.",
        ["size", "a", "b", "turns"],
    )
    assert marked == {"size": "How big.", "a": "Both.", "b": "Both."} and mentioned == {"turns": "It `turns` left."}


def test_the_sites_pages_are_those_there_are():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = {entry if isinstance(entry, str) else next(iter(entry.values())) for entry in site["nav"]}
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")} | {
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "tools/results/README.md",
    }


def test_the_citation_has_the_version():
    from di4c import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__ and citation["preferred-citation"]["title"]
