"""A teacher that is sharded over the ranks, in the host's memory or not, teaches the same."""

import pytest

from tests.engine.launching import launch, losses, relative

CELL = {"precision": "fp32", "offload": False, "head": "token"}
PLACEMENTS = ("replicated", "sharded", "offloaded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("placement")


def trained(folder, stages, ranks):
    """Results by (stage, placement); the losses are in folder/STAGE-PLACEMENT."""
    cells = [(stage, placement) for stage in stages for placement in PLACEMENTS]
    jobs = [CELL | {"stage": s, "teacher": p, "folder": f"{folder}/{s}-{p}"} for s, p in cells]
    return dict(zip(cells, launch(jobs, ranks, module="tests.scale.cells")[0], strict=True))


@pytest.mark.slow
def test_wherever_the_teacher_lies_the_losses_are_the_same(folder):
    results = trained(folder, (0, 3), ranks=2)
    for (stage, placement), result in results.items():
        assert result["finished"], result
        assert relative(losses(folder / f"{stage}-{placement}"), losses(folder / "0-replicated")) < 1e-5
        if placement == "replicated":
            assert result["teacher"] == 1
        else:  # half of all but the output head
            assert 0.5 <= result["teacher"] < 0.6
