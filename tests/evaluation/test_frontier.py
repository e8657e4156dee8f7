"""Quality against entropy over temperatures: which curves are reached, and what is measured and drawn for it."""

import json

import pytest

from di4c.commands.evaluate import main
from di4c.errors import SpecError
from di4c.evaluation import sweep
from di4c.evaluation.comparison import compare, settings_of
from di4c.evaluation.frontier import Frontier, comparisons
from di4c.evaluation.frontier_plot import frontier_figure
from di4c.evaluation.loaded import load
from di4c.evaluation.tempered import FrontierOptions
from di4c.ranks import Ranks
from tests.evaluation.conftest import PRETRAIN, distill, write_run

TEMPERATURES = (0.7, 0.8, 0.9, 1.0)


def rows(model, steps, points, size=None, std=0.01):
    """A curve of (entropy, quality) points, a temperature each."""
    return [
        {"model": model, "mixture_size": size, "steps": steps, "temperature": t, "metrics": {
            "tv": {"mean": quality, "std": std}, "entropy": {"mean": entropy, "std": 0.0}}}
        for t, (entropy, quality) in zip(TEMPERATURES, points, strict=True)
    ]  # fmt: skip


def line(low, high, at, slope=0.1):
    """Four points of quality at + slope·entropy between two entropies."""
    return [(low + (high - low) * i / 3, at + slope * (low + (high - low) * i / 3)) for i in range(4)]


TEACHER = rows("teacher", 4, line(1.0, 2.0, 0.0)) + rows("teacher", 16, line(1.0, 2.0, -0.05))


def reached(model_rows, higher_is_better=False):
    found = comparisons(TEACHER + model_rows, "tv", "entropy", higher_is_better)
    return {c["teacher_steps"]: c for c in found}


def test_a_curve_is_reached_at_matched_entropy_and_not_at_matched_temperature():
    """The same line, at other entropies: at each temperature the values differ by far."""
    found = reached(rows("student", 2, line(1.2, 2.6, 0.0), size="inf"))
    assert found[4]["difference"] == pytest.approx(0, abs=1e-12) and found[4]["reached"] and found[4]["points"] == 3
    assert found[4]["spread"] == pytest.approx(0.01 * 2**0.5)
    assert found[16]["difference"] == pytest.approx(0.05) and not found[16]["reached"]


@pytest.mark.parametrize(("offset", "holds"), [(0.014, True), (0.0145, False), (-0.3, True)])
def test_one_spread_is_what_decides(offset, holds):
    assert reached(rows("student", 2, line(0.9, 2.1, offset)))[4]["reached"] is holds


def test_what_is_good_the_other_way_is_compared_the_other_way():
    found = reached(rows("student", 2, line(0.9, 2.1, 0.1)), higher_is_better=True)
    assert found[4]["reached"] and found[4]["difference"] == pytest.approx(-0.1)
    assert not reached(rows("student", 2, line(0.9, 2.1, -0.1)), higher_is_better=True)[4]["reached"]


@pytest.mark.parametrize(("low", "high", "points"), [(3.0, 4.0, 0), (1.9, 4.0, 1), (0.0, 1.1, 1)])
def test_curves_that_do_not_meet_are_not_compared(low, high, points):
    found = reached(rows("student", 2, line(low, high, -1.0)))[4]
    assert found["reached"] is None and found["points"] == points and found["difference"] is None


def test_it_says_the_most_steps_that_are_reached():
    every = (
        TEACHER
        + rows("student", 2, line(0.9, 2.1, 0.0), size="inf")
        + rows("student", 4, line(0.9, 2.1, -0.05), size="inf")
    )
    every += rows("student", 2, line(0.9, 2.1, 1.0), size="product") + rows("other", 2, line(5, 6, 0.0))
    told = Frontier("tv", "entropy", False, every, comparisons(every, "tv", "entropy", False)).told()
    assert told == [
        "student at 2 steps reaches the teacher at 4 steps",
        "student at 4 steps reaches the teacher at 16 steps",
        "student, product at 2 steps reaches the teacher at no number of steps measured",
        "other at 2 steps: its entropies do not meet the teacher's",
    ]


@pytest.mark.parametrize("students", [[], rows("student", 2, line(0.9, 2.1, 0.0), size="inf")])
def test_it_is_drawn(students):
    frontier = Frontier("tv", "entropy", False, TEACHER + students, [])
    for known in ({}, {"tv": {"mean": 0.1, "std": 0}, "entropy": {"mean": 1.5, "std": 0}}):
        assert frontier_figure(frontier, known).startswith(b"\x89PNG")


@pytest.mark.parametrize("temperatures", [(), (1.0,), (1.0, 1), (1.0, -0.5), (1.0, "hot")])
def test_a_curve_needs_two_temperatures(temperatures):
    with pytest.raises(SpecError, match="--temperatures"):
        FrontierOptions(temperatures)


def test_a_run_and_its_teacher_over_temperatures_cell_by_cell(tmp_path, monkeypatch):
    teacher = write_run(tmp_path / "teacher", PRETRAIN)
    student = load(write_run(tmp_path / "student", distill(teacher)), device="cpu")
    settings = settings_of(
        student.spec, metrics=["pairwise", "entropy", "nll"], mixture_sizes=["inf"], steps=[1, 2], samples=12
    )

    def go(options):
        return compare(
            student, settings, tmp_path / "out", also={}, ranks=Ranks(), say=lambda *told: None, frontier=options
        )

    found = go(FrontierOptions((1.0, 0.5))).frontier
    assert (found.quality, found.entropy, found.higher_is_better) == (
        "covariance_error",
        "position_entropy_nats",
        False,
    )
    assert (
        len(found.rows) == 2 * 2 * 2
        and len(found.reached) == 2 * 2
        and "nll_nats_per_token" not in found.rows[0]["metrics"]
    )
    plain = {(r["model"], r["steps"]): r["metrics"] for r in found.rows if r["temperature"] == 1}
    stored = json.loads((tmp_path / "out/eval.json").read_text())
    assert all(plain[r["model"], r["steps"]].items() <= r["metrics"].items() for r in stored["rows"])
    assert stored["frontier"]["rows"] == found.rows and (tmp_path / "out/frontier.png").exists()
    page = (tmp_path / "out/report.html").read_text()
    assert "Quality against entropy" in page and all(line.replace("'", "&#x27;") in page for line in found.told())

    def nothing_left(*arguments, **options):
        raise AssertionError("sampled again")

    monkeypatch.setattr(sweep.Recipe, "batches", nothing_left)
    assert go(FrontierOptions((0.5, 1.0))).frontier == found
    with pytest.raises(
        SpecError, match="--quality: expected a value of eval.metrics of which the good way is known, found 'x'"
    ):
        go(FrontierOptions((0.5, 1.0), quality="x"))
    with pytest.raises(SpecError, match="--entropy: 'pair' is not measured"):
        go(FrontierOptions((0.5, 1.0), entropy="pair"))


def test_the_command_takes_temperatures_and_top_p(tmp_path, capsys):
    run, out = write_run(tmp_path / "teacher", PRETRAIN), tmp_path / "out"
    given = [
        "--run",
        run,
        "--out",
        out,
        "--metrics",
        "pairwise,entropy",
        "--steps",
        "1",
        "--samples",
        "8",
        "--seeds",
        "1",
    ]
    main([*map(str, given), "--temperature", "0.5", "--top-p", "0.9", "--temperatures", "0.5,1.0", "--device", "cpu"])
    stored = json.loads((out / "eval.json").read_text())
    assert (stored["settings"]["temperature"], stored["settings"]["top_p"]) == (0.5, 0.9)
    assert (
        stored["rows"][0]["metrics"]
        == stored["frontier"]["rows"][0]["metrics"]
        != stored["frontier"]["rows"][1]["metrics"]
    )
    capsys.readouterr()
    for wrong in (["--temperatures", "0"], ["--top-p", "1.5"], ["--temperature", "hot"]):
        with pytest.raises(SystemExit):
            main([*map(str, given), *wrong])
        assert "expected a number" in capsys.readouterr().err
