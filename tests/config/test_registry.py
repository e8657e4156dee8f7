import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from di4c.config.kinds import KINDS
from di4c.config.registry import Registry, Target
from di4c.config.suggest import suggestion
from di4c.errors import RegistryError

THEIR_MODULE = """
from di4c.contracts import Metric

class TheirMetric(Metric):
    def __init__(self, k: int):
        self.k = k

    def __call__(self, generation):
        return {"k": float(self.k)}
"""


def write(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return str(file)


@pytest.fixture(scope="module")
def builtin() -> Registry:
    return Registry.default()


def test_every_name_of_registry_yaml_resolves_to_a_documented_class(builtin):
    found = [(kind, target) for kind in KINDS for target in builtin.targets(kind)]
    assert {kind for kind, _ in found} >= {"teachers", "backbones", "processes", "student_heads", "objectives"}
    for kind, target in found:
        cls = builtin.resolve(kind, target.name)
        assert isinstance(cls, type), target
        assert cls.__doc__, f"{target.reference} has no docstring"


def test_an_unknown_name_suggests_and_lists():
    registry = Registry([Target("teachers", "mdlm", "a:B", "test"), Target("teachers", "module", "a:C", "test")])
    with pytest.raises(RegistryError, match=r"no teacher named 'mldm'\. Did you mean 'mdlm'\? Known: mdlm, module\."):
        registry.find("teachers", "mldm")


def test_an_unknown_kind_suggests():
    with pytest.raises(RegistryError, match=r"no kind 'heads'\. Did you mean 'student_heads'\?"):
        Registry([]).find("heads", "token")
    with pytest.raises(RegistryError, match="no kind 'techers'. Did you mean 'teachers'"):
        Registry([Target("techers", "x", "a:B", "somewhere")])


def test_two_targets_for_one_name_name_both_sources(tmp_path):
    plugin = write(tmp_path, "mine.py", 'DI4C_PLUGINS = {"samplers": {"ancestral": "Mine"}}')
    one, other = r"di4c_plugins\..* \(from registry\.yaml\)", r"mine\.py:Mine \(from plugins: .*mine\.py\)"
    with pytest.raises(RegistryError, match=f"two samplers are named 'ancestral': {one} and {other}"):
        Registry.default([plugin])


def test_the_same_target_twice_is_no_conflict():
    twice = [Target("metrics", "m", "a:B", source) for source in ("one", "two")]
    assert len(Registry(twice).targets("metrics")) == 1


def test_direct_names_need_no_registration(builtin):
    assert builtin.resolve("datasets", "collections:OrderedDict").__name__ == "OrderedDict"


@pytest.mark.parametrize("reference", ["nomodule", "a.b:", "a b:C", ":C", "a:B-C"])
def test_malformed_references_are_refused(reference):
    with pytest.raises(RegistryError, match=r"expected 'package.module:Class'"):
        Registry([Target("metrics", "m", reference, "there")])


def test_a_failing_import_keeps_its_cause(tmp_path):
    plugin = write(tmp_path, "broken.py", 'DI4C_PLUGINS = {"metrics": {"m": "M"}}\nimport no_such_module_at_all')
    with pytest.raises(RegistryError, match="its import failed: ModuleNotFoundError.*no_such_module_at_all") as caught:
        Registry.default([plugin]).resolve("metrics", "m")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_missing_class_says_what_there_is(tmp_path):
    plugin = write(tmp_path, "typo.py", 'DI4C_PLUGINS = {"metrics": {"m": "Metrik"}}\nclass Metric: pass')
    with pytest.raises(RegistryError, match=r"there is no 'Metrik'\. Did you mean 'Metric'"):
        Registry.default([plugin]).resolve("metrics", "m")


def test_names_are_known_before_anything_is_imported(tmp_path):
    plugin = write(tmp_path, "lazy.py", 'DI4C_PLUGINS = {"metrics": {"m": "M"}}\nraise SystemExit("imported")')
    code = f"""
        import sys
        from di4c.config.registry import Registry
        registry = Registry.default([{plugin!r}])
        assert registry.find("metrics", "m").reference.endswith(":M")
        assert not any(name.startswith(("torch", "di4c_plugins")) for name in sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_entry_points_of_other_distributions_are_found(tmp_path):
    info = tmp_path / "their_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[di4c.metrics]\ntheirs = their_module:TheirMetric\n")
    write(tmp_path, "their_module.py", THEIR_MODULE)
    code = """
        from di4c.config.construct import create
        from di4c.config.registry import Registry
        registry = Registry.default()
        print(registry.find("metrics", "theirs").source)
        print(create(registry, "metrics", {"name": "theirs", "k": "4"}).k)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    assert ended.stdout.splitlines() == ["entry point of their-parts", "4"]


def test_a_kind_has_one_key_in_a_spec():
    assert len({kind.key for kind in KINDS.values()}) == len(KINDS)


def test_suggestions():
    assert suggestion("zzz", ["a", "b"]) == " Known: a, b."
    assert suggestion("x", []) == " Known: none."
    assert re.search("Did you mean 'control-variate'", suggestion("variate", ["control-variate", "monte-carlo"]))


def test_every_kind_says_where_it_stands_in_a_spec():
    assert all(kind.places for kind in KINDS.values())
