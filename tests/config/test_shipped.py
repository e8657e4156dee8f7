import pytest

from di4c.config.shipped import about, shipped_specs, spec_path
from di4c.config.spec import read_spec
from di4c.errors import SpecError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_shipped_spec_is_found_by_its_name_from_anywhere():
    assert read_spec("digits-teacher", ["train.steps=20"]).train.steps == 20
    assert read_spec("digits-teacher") == read_spec(shipped_specs()["digits-teacher"])


def test_a_file_wins(tmp_path):
    (tmp_path / "digits-teacher").write_text("task: x\n")
    assert spec_path("digits-teacher").resolve() == tmp_path / "digits-teacher"
    with pytest.raises(SpecError, match="^digits-teacher: "):
        read_spec("digits-teacher")


def test_a_folder_of_the_name_hides_no_spec(tmp_path):
    (tmp_path / "digits-teacher").mkdir()
    (tmp_path / "mine").mkdir()
    assert spec_path("digits-teacher").is_file()
    with pytest.raises(SpecError, match="mine: is a folder"):
        read_spec("mine")


def test_an_unknown_name_is_told_with_its_neighbours():
    with pytest.raises(
        SpecError,
        match="digits-techer: no such file, and no spec of that name .*Did you mean 'digits-teacher'.*Known: .*digits-student",
    ):
        read_spec("digits-techer")


@pytest.mark.parametrize(
    "path", ["./digits-teacher", "absent/digits-teacher", "digits-teacher.yaml", "../digits-teacher"]
)
def test_what_is_a_path_is_no_name(path):
    with pytest.raises(SpecError, match=f"{path.removeprefix('./')}: no such file$"):
        read_spec(path)


def test_every_shipped_spec_says_what_it_is_about():
    specs = shipped_specs()
    assert len(specs) > 20 and all(about(path) for path in specs.values())
