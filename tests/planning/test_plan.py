"""Plans against hand counts, and against what trainings really take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from di4c.__main__ import main
from di4c.config.spec import Spec
from di4c.errors import SpecError
from di4c.planning.activations import Trace
from di4c.planning.live import LiveBytes
from di4c.planning.memory import Engine, Memory, Passes, memory
from di4c.planning.plan import Plan, parsed_bytes
from di4c.planning.sizes import Sizes
from di4c.planning.text import plan_text

pytest.importorskip("transformers")
TOP = Path(__file__).resolve().parents[2]
TOLERANCE = 0.15


def spec(folder: Path, *, width: int, vocabulary: int, layers: int = 2, zero: dict | None = None, **student) -> dict:
    (folder / "text.txt").write_text("lorem ipsum dolor sit amet " * 100)
    bert = {
        "model_type": "bert", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4,
        "intermediate_size": 4 * width, "vocab_size": vocabulary, "mask_token_id": 40,
    }  # fmt: skip
    letters = "abcdefghijklmnopqrstuvwxyz \n"
    return {
        "task": "distill", "seed": 0,
        "data": {"name": "text", "length": 16, "path": f"{folder}/text.txt", "cache": f"{folder}/cache", "alphabet": letters},
        "process": {"name": "absorbing", "mask_index": 40},
        "teacher": {"name": "hf-masked-lm", "dropout": 0.0, "config": bert},
        "student": {"head": "token"} | student,
        "latent": "uniform",
        "objective": {
            "components": 2, "time": {"name": "uniform"}, "sampler": "ancestral",
            "data": {"weight": 1.0, "estimator": "monte-carlo", "gate": {"shape": "constant", "scale": 1.0}},
        },
        "train": {
            "run": f"{folder}/run", "steps": 3, "batch_size": 4, "micro_batch_size": 2, "clip": 1.0, "ema": 0.9, "precision": "fp32",
            "optimizer": {"lr": 1e-4, "betas": [0.9, 0.99], "weight_decay": 0.0}, "schedule": {"warmup": 1, "decay": "constant"},
            "diagnostics_every": 0,
        },
        "deepspeed": {"zero_optimization": zero or {"stage": 0}},
    }  # fmt: skip


LORA = {"lora": {"rank": 4, "targets": ["query", "value"], "alpha": 8}}


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    values = spec(tmp_path_factory.mktemp("plan"), width=32, vocabulary=100)
    return Plan(Spec.from_dict(values), gpus=2, gpu_memory=8 * 2**30)


def test_live_bytes_count_what_is_held_and_free_what_is_not():
    module = nn.Sequential(*(nn.Linear(100, 100, device="meta") for _ in range(5)))
    with LiveBytes(module) as live:
        y = module(torch.empty(50, 100, device="meta").requires_grad_())
        assert live.now == 6 * 50 * 100 * 4  # every layer's output, and the input
        y.sum().backward()
        gradients = 5 * (100 * 100 + 100) * 4
        assert gradients < live.peak and live.peak_without_gradients < live.peak
    del y


def test_parameters_are_counted_without_allocating_them(plan):
    bert = sum(p.numel() for p in plan.networks.teacher.backbone.parameters())
    assert plan.sizes.teacher_bytes == 4 * bert
    assert bert < plan.sizes.trained < bert + 5000
    assert all(p.is_meta for p in plan.networks.student.parameters())


def test_a_shared_base_has_no_gradients_no_moments_and_no_second_copy(tmp_path):
    whole = Plan(Spec.from_dict(spec(tmp_path, width=64, vocabulary=3000)), gpus=1)
    shared = Plan(Spec.from_dict(spec(tmp_path, width=64, vocabulary=3000, **LORA)), gpus=1)
    assert shared.sizes.teacher_bytes == 0 and shared.sizes.frozen_bytes == whole.sizes.teacher_bytes
    assert shared.sizes.trained < 0.1 * whole.sizes.trained
    assert shared.rows[0].memory.peak < 0.5 * whole.rows[0].memory.peak


SIZES = Sizes(trained=1000, frozen=0, largest=500, teacher_bytes=0, frozen_bytes=0)
NOTHING = Passes(Trace(0, 0, 0, 0, 0))


@pytest.mark.parametrize(("stage", "weights", "optimizer", "average"), [(0, 4000, 8000, 4000), (1, 4000, 6000, 2000),
                                                                       (2, 4000, 6000, 2000), (3, 2000, 4000, 2000)])  # fmt: skip
def test_stages_shard_what_they_say(stage, weights, optimizer, average):
    found = memory(SIZES, NOTHING, Engine(stage, ranks=2, bf16=False, average=True, bucket_full=False))
    assert (found.weights, found.optimizer, found.average) == (weights, optimizer, average)


def test_offloading_moves_bytes_to_the_host():
    here = memory(SIZES, NOTHING, Engine(3, 2, False, True, bucket_full=False))
    there = memory(
        SIZES, NOTHING, Engine(3, 2, False, True, offload_optimizer=True, offload_param=True, bucket_full=False)
    )
    assert there.peak < here.peak and there.weights == there.optimizer == there.average == 0
    assert there.host >= here.weights + here.optimizer + here.average
    assert there.gathered == here.gathered


def test_more_components_and_examples_need_more_and_the_largest_fits(plan):
    row = plan.rows[2]
    available = 0.95 * plan.gpu_memory - 2**30
    assert plan.memory(row.engine, components=row.largest_components).peak <= available
    assert plan.memory(row.engine, components=row.largest_components + 1).peak > available
    assert plan.memory(row.engine, micro=row.largest_micro + 1).peak > available


def test_the_fit_through_three_traces_agrees_with_a_trace(plan):
    fitted, traced = plan._fit(2, 2), plan._exact[0]
    for key in ("saved", "peak_without_gradients", "loss"):
        assert getattr(fitted, key) == pytest.approx(getattr(traced, key), rel=0.05), key


def test_fewer_components_at_a_time_leave_room_for_more_of_them(tmp_path, plan):
    values = spec(tmp_path, width=32, vocabulary=100)
    values["objective"] |= {"components": 8, "components_at_a_time": 2}
    split = Plan(Spec.from_dict(values), gpus=2, gpu_memory=4 * 2**30)
    values["objective"]["components_at_a_time"] = None
    whole = Plan(Spec.from_dict(values), gpus=2, gpu_memory=4 * 2**30)
    assert split._exact[0].peak < 0.5 * whole._exact[0].peak and split.step_flops > whole.step_flops
    assert split._fit(2, 8).peak_without_gradients == pytest.approx(split._exact[0].peak_without_gradients, rel=0.05)
    assert split.rows[2].largest_components > 4 * whole.rows[2].largest_components


def test_a_teacher_lies_in_slices_but_for_its_readout():
    sized = Sizes(
        trained=1000, frozen=0, largest=100, teacher_bytes=4000, frozen_bytes=0, teacher_output_head_bytes=400
    )
    here, cut, away = (
        memory(sized, NOTHING, Engine(0, ranks=4, bf16=False, average=True, teacher=placement))
        for placement in ("replicated", "sharded", "offloaded")
    )
    assert (here.teacher, cut.teacher, away.teacher) == (4000, 400 + 900, 400) and away.host == 900
    assert here.activations == 0 and cut.activations == 3600


def test_the_command_prints_a_table_and_a_recommendation(tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(spec(tmp_path, width=32, vocabulary=100)))  # JSON is YAML
    assert main(["plan", str(path), "--gpus", "2", "--gpu-memory", "80GB"]) == 0
    told = capsys.readouterr().out
    assert "recommended: deepspeed: {zero_optimization: {stage: 0}}" in told and "stage 3, offloaded" in told
    assert "\nMB a GPU" in told and "\n2 GPUs, " in told
    assert main(["plan", str(path)]) == 0
    told = capsys.readouterr().out
    assert "\n1 GPU, " in told and "fits" not in told


def test_nothing_fits_is_said(tmp_path):
    made = Plan(Spec.from_dict(spec(tmp_path, width=32, vocabulary=100)), gpus=1, gpu_memory=2**30)
    assert made.recommended is None and "nothing fits" in plan_text(made)


@pytest.mark.parametrize(
    ("text", "size"), [("80GB", 80 * 10**9), ("40 GiB", 40 * 2**30), ("1.5gb", 1.5e9), ("123", 123)]
)
def test_sizes_are_read(text, size):
    assert parsed_bytes(text) == size


def test_bad_sizes_are_refused():
    with pytest.raises(SpecError, match="--gpu-memory"):
        parsed_bytes("eighty")


def measured(values: dict, ranks: int) -> int:
    """The largest peak above idle over the ranks of a training in fresh processes."""
    code = (
        "import json, sys; from tools.research.measure_memory import measure; "
        "print(json.dumps(measure(json.loads(sys.argv[1]), ranks=int(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(values), str(ranks)]
    ended = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return max(rank["above_idle_bytes"] for rank in json.loads(ended.stdout))


def planned(values: dict, ranks: int) -> int:
    """What the plan says such a process takes: the host's memory is the device's here."""
    made = Plan(Spec.from_dict(values), gpus=ranks, bucket_full=False)
    zero = values["deepspeed"]["zero_optimization"]
    needed: Memory = made.memory(made.engine(zero["stage"], offload="offload_optimizer" in zero))
    return needed.peak + needed.host


def test_a_plan_agrees_with_a_small_training(tmp_path):
    values = spec(tmp_path, width=256, vocabulary=90_000, zero={"stage": 1})
    values["train"]["batch_size"] = 2
    assert planned(values, 1) == pytest.approx(measured(values, 1), rel=TOLERANCE)


OFFLOAD_2 = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
OFFLOAD_3 = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}


@pytest.mark.slow
@pytest.mark.parametrize("zero", [{"stage": 0}, {"stage": 1}, {"stage": 2}, {"stage": 3}, OFFLOAD_2, OFFLOAD_3])
def test_plans_agree_with_trainings_of_100_million_parameters(tmp_path, zero):
    values = spec(tmp_path, width=768, vocabulary=30_522, layers=12, zero=zero)
    assert planned(values, 2) == pytest.approx(measured(values, 2), rel=TOLERANCE)


def test_a_posterior_is_trained_too_and_gives_each_sample_components_of_its_own(tmp_path, plan):
    """x_0 and two samples of the target, M each; the posterior's parameters are counted, and sharded, with the student's."""
    values = spec(tmp_path, width=32, vocabulary=100)
    values["objective"] |= {
        "targets": 2, "teacher_step": {"distribution": "constant", "size": 0.1}, "consistency": {"weight": 1.0, "estimator": "monte-carlo"},
        "proposal": {"posterior": {"name": "transformer", "width": 8, "depth": 1, "heads": 2}},
    }  # fmt: skip
    proposed = Plan(Spec.from_dict(values), gpus=2)
    parameters = sum(p.numel() for p in proposed.networks.posterior.parameters())
    assert proposed.sizes.trained == plan.sizes.trained + parameters and parameters > 1000
    assert proposed.scored == 3
    assert proposed._trace(2, 2).peak == plan._trace(2, 6).peak
