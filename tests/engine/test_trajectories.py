"""The same losses whatever the number of ranks, the ZeRO stage, the splitting, and whether the run was interrupted."""

import json
from pathlib import Path

import pytest
import torch

from di4c.contracts import Batch, Draws
from di4c.engine.optimizer import parameter_groups
from di4c.engine.schedule import lr_factor
from tests.engine.launching import exported, launch, losses, relative
from tests.engine.toy import ToyModel, ToyObjective, ToySplit, options_of

STAGES = (0, 1, 2, 3)
OFFLOAD = {
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
}


def stage(number: int) -> dict:
    return {"zero_optimization": {"stage": number}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


LAST = "checkpoints/step-00000012"
SELDOM = {"options": {"log_every": 5, "checkpoint_every": 4, "diagnostics_every": 4}}
OF_ONE_RANK = {
    **{f"one-{s}": {"deepspeed": stage(s)} for s in STAGES},
    **{f"bf16-{s}": {"deepspeed": stage(s), "options": {"precision": "bf16"}} for s in STAGES},
    "whole": {"options": {"micro_batch_size": None}},
    "offload": {"deepspeed": OFFLOAD},
    "offload-2": {"deepspeed": {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}},
    "dropout": {"objective": {"dropout": 0.3}},
    "seldom": SELDOM,
}
REPEATED = [f"one-{s}" for s in STAGES] + [f"bf16-{s}" for s in STAGES] + ["offload", "seldom"]
OF_TWO_RANKS = {
    **{f"two-{s}": {"deepspeed": stage(s)} for s in STAGES},
    "two-dropout": {"objective": {"dropout": 0.3}, "deepspeed": stage(3)},
}
UP = [("one-1", 3), ("one-3", 1), ("one-0", 2), ("one-2", 0)]
DOWN = [("two-3", 1), ("two-0", 3), ("two-1", 2), ("two-2", 0)]


def resumed(folder: Path, run: str, into: str, job: dict) -> dict:
    """The job that continues a copy of `run` without its last checkpoint."""
    return job | {"folder": f"{folder}/{into}", "copy": f"{folder}/{run}", "drop": [LAST], "resume": True}


@pytest.fixture(scope="module")
def one_rank(folder) -> str:
    """Runs of one rank, and continuations of them from their last checkpoint but one; what it printed."""
    jobs = [job | {"folder": f"{folder}/{name}"} for name, job in OF_ONE_RANK.items()]
    jobs += [resumed(folder, name, f"again-{name}", OF_ONE_RANK[name]) for name in REPEATED]
    results, text = launch(jobs)
    assert all(r == {"step": 12, "finished": True, "already": False} for r in results), results
    return text


@pytest.fixture(scope="module")
def two_ranks(folder, one_rank) -> str:
    """Runs of two ranks, and continuations on two of runs of one."""
    jobs = [job | {"folder": f"{folder}/{name}"} for name, job in OF_TWO_RANKS.items()]
    jobs += [resumed(folder, name, f"up-{name}", {"deepspeed": stage(s)}) for name, s in UP]
    results, text = launch(jobs, ranks=2)
    assert all(r["finished"] for r in results), results
    return text


def reference() -> tuple[list[float], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(losses, weights, averaged weights) of the default job, in plain torch."""
    options, objective, split = options_of(), ToyObjective(), ToySplit()
    groups = parameter_groups(objective, options.optimizer)
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=options.optimizer.weight_decay)
    average = {n: p.detach().clone() for n, p in objective.named_parameters()}
    found = []
    order = torch.cat([Draws(1, path=("order", epoch)).permutation(len(split))[0] for epoch in range(5)])
    for step in range(options.steps):
        first = step * options.batch_size
        batch = Batch(split.x_0[order[first : first + options.batch_size]])
        draws = Draws(1, first=first, count=options.batch_size, path=("train", step))
        loss = objective(batch, draws, step)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), options.clip)
        for group in optimizer.param_groups:
            group["lr"] = (
                options.optimizer.lr * group["lr_multiplier"] * lr_factor(step, options.steps, options.schedule)
            )
        optimizer.step()
        found.append(loss.item())
        decay = min(options.ema, (2 + step) / (11 + step))
        for name, parameter in objective.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * parameter.detach()
    return found, dict(objective.named_parameters()), average


def test_losses_and_average_are_those_of_plain_torch(folder, one_rank):
    expected, weights, average = reference()
    for name in [f"one-{s}" for s in STAGES] + ["whole", "offload"]:
        assert relative(losses(folder / name), expected) < 1e-5, name
        model = exported(folder / name)
        for key, value in model.items():
            if f"model.{key}" in average:
                torch.testing.assert_close(value, average[f"model.{key}"], rtol=1e-4, atol=1e-5, msg=f"{name} {key}")
        # the average is not the weights
        assert (model["mix.0.weight"] - weights["model.mix.0.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("number", STAGES)
def test_two_ranks_agree_with_one(folder, two_ranks, number):
    assert relative(losses(folder / f"two-{number}"), losses(folder / "one-0")) < 1e-5
    one, two = exported(folder / "one-0"), exported(folder / f"two-{number}")
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-5)


def test_dropout_agrees_too(folder, two_ranks):
    assert relative(losses(folder / "dropout"), losses(folder / "one-0")) > 1e-3
    assert relative(losses(folder / "two-dropout"), losses(folder / "dropout")) < 1e-5


def test_bfloat16_stages_agree_with_one_another_and_nearly_with_float32(folder, one_rank):
    runs = [losses(folder / f"bf16-{s}") for s in STAGES]
    assert all(relative(run, runs[0]) < 1e-2 for run in runs)
    assert 0 < relative(runs[1], losses(folder / "one-0")) < 0.1


def test_offload_and_micro_batches_change_nothing(folder, one_rank):
    for name in ("offload", "offload-2", "whole"):
        assert relative(losses(folder / name), losses(folder / "one-0")) < 1e-5, name


def test_the_export_loads_strictly_without_deepspeed(folder, one_rank, two_ranks):
    for name in ("one-0", "two-3", "bf16-2"):
        model = ToyModel()
        model.load_state_dict(exported(folder / name), strict=True)
        assert model.head.weight is model.embed.weight
        config = json.loads((folder / name / "export" / "config.json").read_text())
        assert (config["format"], config["version"], config["step"], config["weights"]) == ("di4c-export", 1, 12, "ema")


def test_reports_are_means_since_the_last_one(folder, one_rank):
    every = losses(folder / "one-0")
    expected = [sum(every[0:5]) / 5, sum(every[5:10]) / 5, sum(every[10:12]) / 2]
    assert relative(losses(folder / "seldom"), expected) < 1e-6
    assert "step 4 diagnostics  mean_logit" in one_rank and "probed 5 " in one_rank


def test_progress_is_lines_when_not_in_a_terminal(one_rank):
    assert "step 12/12  loss" in one_rank and "examples/s  ETA 0:00" in one_rank


def test_a_run_records_how_it_was_made(folder, two_ranks):
    session = json.loads((folder / "two-3" / "run.json").read_text())["sessions"][0]
    assert (session["world_size"], session["zero_stage"], session["seed"], session["finished"]) == (2, 3, 1, True)
    assert session["versions"]["torch"] == torch.__version__ and session["wall_clock_s"] > 0
    assert (folder / "two-3" / "spec.yaml").read_text() == "task: toy\n"


def test_resumed_runs_repeat_the_uninterrupted_losses_exactly(folder, one_rank):
    """Every stage on one rank, in both precisions; reports that straddle the checkpoint too."""
    assert one_rank.count("resumed from") == len(REPEATED)
    for name in REPEATED:
        assert losses(folder / f"again-{name}") == losses(folder / name), name
        before = exported(folder / name)
        for key, value in exported(folder / f"again-{name}").items():
            assert torch.equal(value, before[key]), (name, key)


def test_a_checkpoint_resumes_at_any_stage_and_number_of_ranks(folder, two_ranks):
    """Written by two ranks at one stage, continued by one at another, and the other way round."""
    results, _ = launch([resumed(folder, name, f"down-{name}", {"deepspeed": stage(s)}) for name, s in DOWN])
    assert all(r["finished"] for r in results), results
    for name in [f"up-{name}" for name, _ in UP] + [f"down-{name}" for name, _ in DOWN]:
        assert relative(losses(folder / name), losses(folder / "one-0")) < 1e-5, name
