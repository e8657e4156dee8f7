import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from di4c.evaluation.plots import _draw_metric, legend_above, metrics_figure, panels_of, read_curves, training_figure
from di4c.evaluation.rows import plain
from di4c.evaluation.style import looks
from di4c.evaluation.table import rows_of
from tests.evaluation.tables import HIGHER_IS_BETTER, REFERENCE_VALUES, VALUES, measurements


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)


def test_every_model_is_drawn_in_its_colour():
    png = metrics_figure(rows_of(measurements()), REFERENCE_VALUES, HIGHER_IS_BETTER)
    seen = {tuple(p) for p in np.unique(pixels(png), axis=0)}
    for look in looks(list(VALUES)).values():
        wanted = tuple(int(look.colour[i : i + 2], 16) for i in (1, 3, 5))
        assert wanted in seen


def test_models_differ_in_colour_and_marker():
    models = [("teacher", None), ("student", "inf"), ("student", "product"), *[("student", k) for k in (1, 4, 16)],
              ("one", "inf"), ("other", "inf")]  # fmt: skip
    drawn = looks(models)
    assert len({look.colour for look in drawn.values()}) == len(models)
    assert len({look.marker for look in drawn.values()}) == len(models)


def test_one_step_and_a_value_of_zero_can_be_drawn():
    rows = [
        row | {"metrics": {"error": {"mean": 0.0, "std": 0.0}}} for row in rows_of(measurements()) if row["steps"] == 1
    ]
    assert len(pixels(metrics_figure(rows, {}, {}))) > 0


def test_curves_leave_out_what_says_nothing(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "step,loss,copy,constant,rare,bad,lr\n1,2.0,2.0,1,,nan,0.1\n2,1.5,1.5,1,5,nan,0.2\n3,1.0,1.0,1,4,nan,0.3\n"
    )
    assert read_curves(path) == {"loss": ([1, 2, 3], [2.0, 1.5, 1.0]), "rare": ([2, 3], [5.0, 4.0])}


@pytest.mark.parametrize("content", ["", "step,loss\n"])
def test_a_run_without_curves(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    assert training_figure({"student": path, "absent": tmp_path / "no.csv"}) is None


@pytest.mark.parametrize("std", [1.0, 50.0, 1e6])
def test_a_band_that_reaches_below_0_ends_below_the_lowest_value_of_a_logarithmic_axis(std):
    axes = Figure().subplots()
    means = {1: 100.0, 2: 50.0, 4: 10.0}
    rows = [
        {"model": "teacher", "mixture_size": None, "steps": n, "metrics": {"e": {"mean": m, "std": std}}}
        for n, m in means.items()
    ]
    _draw_metric(axes, "e", rows, None)
    (band,) = (c.get_paths()[0].vertices[:, 1] for c in axes.collections)
    assert axes.get_yscale() == "log" and band.min() == pytest.approx(max(10.0 - std, 10.0 / 1.3))
    assert band.max() == pytest.approx(100.0 + std)


@pytest.mark.parametrize(("names", "columns"), [(3, 3), (5, 5), (6, 3), (9, 5), (11, 4)])
def test_a_legend_has_lines_of_nearly_equal_length(names, columns):
    figure, (axes,) = panels_of(1)
    for k in range(names):
        axes.plot([0, 1], label=str(k))
    legend_above(figure, [axes])
    assert figure.legends[0]._ncols == columns


def test_names_are_written_as_people_do():
    assert plain("lagged_pair_tv") == "lagged pair TV" and plain("nll_nats_per_token") == "NLL nats per token"
