import csv
import io
import json
import math

import pytest
from rich.console import Console

from di4c.evaluation.rows import is_better, number, ratio
from di4c.evaluation.table import print_table, rows_of, spread, terminal_table, write_csv, write_json
from tests.evaluation.tables import HIGHER_IS_BETTER, REFERENCE_VALUES, measurements

ROWS = rows_of(measurements())


def row(model, size, steps):
    (found,) = [r for r in ROWS if (r["model"], r["mixture_size"], r["steps"]) == (model, size, steps)]
    return found


def test_rows_have_the_fields_that_others_read():
    assert len(ROWS) == 12
    for each in ROWS:
        assert set(each) == {"model", "steps", "mixture_size", "nfe", "latency_ms_per_sample", "metrics"}
        assert all(set(value) == {"mean", "std"} for value in each["metrics"].values())
    assert {r["mixture_size"] for r in ROWS} == {None, "inf", 4, "product"}
    assert {r["model"] for r in ROWS} == {"teacher", "student"}


def test_mean_and_spread_are_over_seeds():
    assert row("student", "inf", 2)["metrics"]["frechet_distance"] == {"mean": 40.5, "std": pytest.approx(0.5**0.5)}
    assert spread([3.0]) == {"mean": 3.0, "std": 0.0}


@pytest.mark.parametrize("values", [[math.nan, math.nan], [1.0, math.nan], [math.inf, -math.inf, 1.0], [math.inf, 1.0]])
def test_what_is_not_finite_has_no_spread(values):
    found = spread(values)
    assert not math.isfinite(found["mean"]) and math.isnan(found["std"])


def test_latency_is_the_median_after_the_warm_up():
    assert row("teacher", None, 2)["latency_ms_per_sample"] == pytest.approx(4.0)


def test_ratio_is_to_the_teacher_at_as_many_steps():
    assert ratio(ROWS, row("student", "inf", 1), "frechet_distance") == pytest.approx(80.5 / 200.5)
    assert ratio(ROWS, row("teacher", None, 1), "frechet_distance") is None
    alone = [r for r in ROWS if r["model"] == "student"]
    assert ratio(alone, alone[0], "frechet_distance") is None


def test_json_is_strict_and_has_the_extra_keys(tmp_path):
    broken = [ROWS[0] | {"metrics": {"a": {"mean": float("nan"), "std": float("inf")}}}]
    path = write_json(tmp_path / "eval.json", broken, spec={"seed": 1}, commit=None)
    values = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert list(values) == ["rows", "spec", "commit"]
    assert values["rows"][0]["metrics"]["a"] == {"mean": None, "std": None}


def test_csv_has_a_line_a_row(tmp_path):
    lines = list(csv.DictReader(io.StringIO(write_csv(tmp_path / "eval.csv", ROWS).read_text())))
    assert len(lines) == len(ROWS)
    assert lines[0]["mixture_size"] == "" and float(lines[0]["frechet_distance"]) == 200.5
    assert {line["mixture_size"] for line in lines} == {"", "inf", "4", "product"}


@pytest.mark.parametrize(
    ("value", "shown"), [(1234.5, "1234"), (123.45, "123.5"), (12.345, "12.35"), (1.2345, "1.234"), (0.01234, "0.0123")]
)
def test_numbers_are_short(value, shown):
    assert number(value) in (shown, shown[:-1] + "5")
    assert number(0.00123, like=value).count(".") == shown.count(".")


def test_terminal_table_shows_ratios_and_floors():
    console = Console(file=io.StringIO(), width=120)
    print_table(terminal_table(ROWS, REFERENCE_VALUES, HIGHER_IS_BETTER), console)
    text = console.file.getvalue()
    assert "80.50 ×0.40" in text and "student, 4 atoms" in text and "student, product" in text
    assert "training data (reference)" in text and "11.00" in text
    assert "×1.00" not in text  # neither the teacher's own nor a guard's


@pytest.mark.parametrize(
    ("mean", "std", "higher", "better"),
    [
        (0.8, 0.05, False, True),
        (0.8, 0.15, False, False),  # within the spreads, which count together
        (0.8, 0.05, True, False),
        (1.2, 0.05, True, True),
        (0.997, 0.0, False, False),  # within half a percent
        (0.8, 0.05, None, False),
        (math.nan, 0.0, False, False),
    ],
)
def test_better_is_by_more_than_the_spreads(mean, std, higher, better):
    rows = [
        {"model": model, "mixture_size": size, "steps": 2, "metrics": {"e": {"mean": value, "std": spread}}}
        for model, size, value, spread in (("teacher", None, 1.0, 0.1), ("student", "inf", mean, std))
    ]
    assert is_better(rows, rows[1], "e", higher) is better
    assert not is_better(rows, rows[0], "e", higher) and not is_better(rows[1:], rows[1], "e", higher)
