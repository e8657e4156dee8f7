import re
from html.parser import HTMLParser

import pytest

from di4c.evaluation.page import sample_figure
from di4c.evaluation.plots import metrics_figure
from di4c.evaluation.report import Report
from di4c.evaluation.table import rows_of
from tests.evaluation.systems import Mean
from tests.evaluation.tables import HIGHER_IS_BETTER, REFERENCE_VALUES, VALUES, measurements

ROWS = rows_of(measurements())


class Outline(HTMLParser):
    """References to files, headings, and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.references, self.open, self.titles = [], [], []

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


@pytest.fixture
def html(tmp_path):
    """The page of a comparison whose samples are text, one of it hostile."""
    sample = tmp_path / "x.txt"
    sample.write_text("<script>alert(1)</script>")
    plot = metrics_figure(ROWS, REFERENCE_VALUES, HIGHER_IS_BETTER)
    report = Report(
        title="Digits & <few> steps", rows=ROWS, reference_values=REFERENCE_VALUES, higher_is_better=HIGHER_IS_BETTER, plot=plot,
        grids={(model, size, steps): sample for model, size in VALUES for steps in (1, 2, 4, 8)}, data_grid=sample,
        curves=plot, spec="seed: 0", facts=[("commit", "abc123")], metrics=[Mean()],
    )  # fmt: skip
    return report.write(tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_is_self_contained_and_well_formed(html):
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert outline.references and all(ref.startswith("data:image/png;base64,") for ref in outline.references)
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html


def test_the_page_has_its_parts(html):
    outline = Outline()
    outline.feed(html)
    assert outline.titles == [
        "Quality against steps", "All numbers", "Samples", "Training", "What is measured", "How this was made",
    ]  # fmt: skip
    assert "×0.40" in html and "abc123" in html and "seed: 0" in html and "training data (reference)" in html


def test_the_finding_stands_at_the_top(html):
    assert html.index("At 1 step the student is better than the teacher") < html.index("<h2>")


def test_a_spread_stands_below_its_value_so_that_columns_stay_narrow(html):
    assert '<span class="ratio better">×0.40</span><span class="std">± ' in html
    assert ".std { display: block;" in html


def test_text_is_escaped(html):
    assert "<script>" not in html
    assert "Digits &amp; &lt;few&gt; steps" in html


def test_samples_stand_side_by_side_at_three_numbers_of_steps(html):
    captions = re.findall(r"<figcaption><b>(.*?)</b> <span>(.*?)</span>", html)
    models = ["teacher", "student", "student, product"]
    shown = [("real data", "held out")] + [(m, s) for s in ("1 step", "2 steps", "4 steps") for m in models]
    assert captions[: len(shown)] == shown
    assert {model for model, _ in captions[len(shown) :]} == {"student, 4 atoms"}


def test_a_picture_is_embedded(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"png")
    assert "data:image/png;base64,cG5n" in sample_figure(path, "teacher")
