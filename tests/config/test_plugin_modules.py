import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from di4c.config.construct import create
from di4c.config.plugin_modules import code_digest, declared, find_source, module_name
from di4c.config.registry import Registry
from di4c.errors import RegistryError

PLUGIN = """
from pathlib import Path
import neighbour_of_the_plugin
from di4c.contracts import Metric

DI4C_PLUGINS = {"metrics": {"mine": "Mine", "theirs": "collections:Counter"}}


class Mine(Metric):
    folder = Path(__file__).parent
    number = neighbour_of_the_plugin.NUMBER

    def __init__(self, *, k: int = 1):
        self.k = k

    def __call__(self, generation):
        return {}
"""


@pytest.fixture
def plugin(tmp_path) -> Path:
    (tmp_path / "neighbour_of_the_plugin.py").write_text("NUMBER = 7\n")
    file = tmp_path / "my-plugin.py"
    file.write_text(PLUGIN)
    return file


def test_a_file_is_imported_under_a_name_of_its_own(plugin):
    registry = Registry.default([str(plugin)])
    mine = create(registry, "metrics", {"name": "mine", "k": 3})
    assert (mine.k, mine.number) == (3, 7)
    assert mine.folder == plugin.parent, "a plugin finds the files beside it"
    assert type(mine).__module__ == module_name(plugin.resolve())
    assert registry.resolve("metrics", "theirs").__name__ == "Counter"


def test_two_files_of_one_name_do_not_clash(tmp_path):
    kinds = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = folder / "same.py"
        file.write_text(f'DI4C_PLUGINS = {{"metrics": {{"m{number}": "M"}}}}\nclass M:\n    number = {number}\n')
        kinds.append(str(file))
    registry = Registry.default(kinds)
    assert [registry.resolve("metrics", f"m{n}").number for n in (1, 2)] == [1, 2]


def test_spawned_workers_can_unpickle_a_plugin(plugin):
    mine = create(Registry.default([str(plugin)]), "metrics", {"name": "mine", "k": 5})
    assert pickle.loads(pickle.dumps(mine)).k == 5
    script = plugin.parent / "main.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing
            from operator import attrgetter
            from di4c.config.construct import create
            from di4c.config.registry import Registry

            if __name__ == "__main__":
                mine = create(Registry.default([{str(plugin)!r}]), "metrics", {{"name": "mine", "k": 5}})
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.map(attrgetter("k"), [mine]))
            """
        )
    )
    shown = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True, timeout=120)
    assert shown.stdout.strip() == "[5]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "has no DI4C_PLUGINS"),
        ("DI4C_PLUGINS = dict()", "must be a literal"),
        ("DI4C_PLUGINS = {'metrics': 3}", "must be a literal"),
        ("DI4C_PLUGINS = {'metrics': {'m': 3}}", "must be a literal"),
        ("def broken(", "is not valid Python"),
    ],
)
def test_a_bad_declaration_is_told(tmp_path, text, told):
    file = tmp_path / "p.py"
    file.write_text(text)
    with pytest.raises(RegistryError, match=told):
        declared(str(file))


def test_absent_files_and_modules_are_told(tmp_path):
    with pytest.raises(RegistryError, match="no file .*absent.py"):
        declared(str(tmp_path / "absent.py"))
    with pytest.raises(RegistryError, match="no module named 'absent_package.x'"):
        declared("absent_package.x")


def test_class_names_and_annotated_declarations(tmp_path):
    file = tmp_path / "p.py"
    file.write_text("class M: pass\nDI4C_PLUGINS: dict = {'metrics': {'m': M}}\n")
    assert declared(str(file)) == {"metrics": {"m": f"{module_name(file.resolve())}:M"}}


def test_sources_are_found_without_importing():
    assert find_source("di4c_plugins.samplers.ancestral").name == "ancestral.py"
    assert find_source("no.such.module") is None
    assert find_source("di4c.no_such_room.x") is None


def test_the_digest_follows_the_code_of_files_and_modules(tmp_path):
    file, other = tmp_path / "mine.py", tmp_path / "other.py"
    file.write_text("a = 1")
    other.write_text("a = 1")
    first = code_digest([str(file)])
    assert first == code_digest([str(file)]) == code_digest([str(other)]), "the text counts, not where it is"
    assert (
        code_digest([]) == {}
        and len({str(code_digest(p)) for p in ([str(file)], [str(file), str(other)], ["json"])}) == 3
    )
    file.write_text("a = 2")
    assert code_digest([str(file)]) != first
