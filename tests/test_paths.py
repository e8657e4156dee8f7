"""Paths that a user gives."""

from pathlib import Path

import pytest

from di4c.errors import SpecError
from di4c.paths import is_plain_name, near, user_path, with_ending


def test_trouble_11_home_stands_where_it_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        user_path("~/x") == tmp_path / "x" and user_path("~") == tmp_path and user_path(Path("~/x")) == tmp_path / "x"
    )
    assert user_path("a/~/b") == Path("a/~/b") and user_path("x~") == Path("x~")


def test_trouble_11_a_folder_that_is_called_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert user_path("./~/x") == tmp_path / "~/x" == user_path(str(user_path("./~/x")))


@pytest.mark.parametrize(
    ("given", "told"),
    [("", "empty"), ("a\0b", "zero byte"), ("a/" + "b" * 256, "255"), ("a/" * 3000, "4095"), ("\ud800", "no path can hold"), ("~nobody-here/x", "./~nobody-here")],
)  # fmt: skip
def test_what_can_be_no_path(given, told):
    with pytest.raises(SpecError, match=told):
        user_path(given)


@pytest.mark.parametrize(
    ("given", "ending", "written"),
    [("g-1.5", ".png", "g-1.5.png"), ("g-1.7", ".png", "g-1.7.png"), ("x.png", ".png", "x.png"), ("x.PNG", ".png", "x.PNG"),
     ("x.jpg", ".png", "x.jpg.png"), ("x.png", ".txt", "x.png.txt"), (".png", ".png", ".png.png"), ("a.b/c", ".txt", "a.b/c.txt")],
)  # fmt: skip
def test_trouble_10_two_paths_stay_two_files(given, ending, written):
    assert with_ending(Path(given), ending) == Path(written)


def test_trouble_b20_names_that_become_paths():
    assert all(map(is_plain_name, ("a", "one-component", "M=4", "γ 1.5", "a.b")))
    assert not any(
        map(is_plain_name, ("", "..", ".", "../x", "/x", "a/b", ".hidden", "a\0", "a\n", "a\\b", "x" * 101, "a/"))
    )


def test_a_path_that_is_not_there_is_told_with_those_that_are_like_it(tmp_path, monkeypatch):
    (tmp_path / "runs/digits-teacher/export").mkdir(parents=True)
    assert near(tmp_path / "runs/digits-tecaher") == f"; did you mean {tmp_path}/runs/digits-teacher?"
    assert near(tmp_path / "rusn/digits-teacher/export") == f"; did you mean {tmp_path}/runs/digits-teacher/export?"
    assert near(tmp_path / "rusn/nothing") == near(tmp_path / "runs/other") == near(tmp_path / "runs") == near("") == ""
    monkeypatch.chdir(tmp_path)
    assert near("run") == "; did you mean runs?" and near(tmp_path / "runs/\0") == ""


def test_a_link_to_nothing_is_there(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "dat").symlink_to("absent")
    assert near(tmp_path / "dat") == ""
