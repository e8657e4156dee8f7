"""Which way each metric is good: what docs/evaluation.md says is what tables, plots and verdicts go by."""

import re
from pathlib import Path

import pytest

from di4c.config.registry import Registry
from di4c_plugins.metrics.generative_perplexity import GenerativePerplexity

PAGE = Path(__file__).parents[3] / "docs/evaluation.md"
WAYS = {"low": False, "high": True, "near": None}


def told() -> dict[str, bool | None]:
    """{name in a spec: the way} of the page's table."""
    section = PAGE.read_text(encoding="utf-8").partition("## What each metric means")[2].partition("\n\nNo metric")[0]
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (\w+)[^|]*\|$", section, re.MULTILINE)
    return {name: WAYS[word] for name, word in rows}


def test_the_page_tells_of_every_metric():
    assert told().keys() == {target.name for target in Registry.default().targets("metrics")}


@pytest.mark.parametrize(("name", "way"), told().items())
def test_a_metric_is_good_the_way_the_page_says(name, way):
    assert Registry.default().resolve("metrics", name).higher_is_better is way


def test_entropy_beside_a_perplexity_is_a_guard():
    names = ["generative_perplexity", "judge_nll_nats_per_token", "sequence_entropy_nats", "judge_tokens"]
    ways = GenerativePerplexity.directions(GenerativePerplexity, names)
    assert list(ways.values()) == [False, False, None, None]
