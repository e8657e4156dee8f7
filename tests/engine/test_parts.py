"""The engine's small parts, without DeepSpeed."""

import json
import math
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from di4c.contracts import Batch, Objective, Split
from di4c.engine.archive import DTYPES, write_safetensors
from di4c.engine.deepspeed_config import deepspeed_config
from di4c.engine.metrics import MetricsFile, RunningMeans
from di4c.engine.optimizer import parameter_groups
from di4c.engine.options import OptimizerOptions, ScheduleOptions
from di4c.engine.run_folder import RunFolder, changed_keys, trained_seconds
from di4c.engine.schedule import lr_factor
from di4c.engine.stream import ExampleStream
from di4c.errors import SpecError, TrainingError
from di4c.files import sha256_of
from tests.engine.toy import options_of

ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0}


class Counting(Split):
    """Example i is the token i."""

    def __len__(self):
        return 10

    def batch(self, indices, draws=None):
        return Batch(indices[:, None], cond=indices)


def test_schedules_warm_up_and_end_at_their_final_value():
    cosine = ScheduleOptions(warmup=4, decay="cosine", final=0.1)
    factors = [lr_factor(k, 20, cosine) for k in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0] and factors[4] == 1.0
    assert factors[-1] == pytest.approx(0.1) and factors[4:] == sorted(factors[4:], reverse=True)
    middle = lr_factor(4 + 15 // 3, 20, cosine)
    assert middle == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2)
    assert lr_factor(12, 21, ScheduleOptions(warmup=4, decay="linear", final=0.0)) == pytest.approx(0.5)
    assert {lr_factor(k, 9, ScheduleOptions(warmup=0, decay="constant")) for k in range(9)} == {1.0}
    # a short trial
    assert [lr_factor(k, 2, ScheduleOptions(warmup=4, decay="cosine", final=0.1)) for k in range(2)] == [0.25, 0.5]


def test_the_stream_visits_every_example_once_an_epoch_however_it_is_split():
    stream = ExampleStream(Counting(), seed=5, batch_size=4)
    whole = [stream.batch(step, 0, 4)[0].x_0[:, 0] for step in range(5)]
    everything = torch.cat(whole)
    assert sorted(everything[:10].tolist()) == sorted(everything[10:].tolist()) == list(range(10))
    assert everything[:10].tolist() != everything[10:].tolist()
    for step in (4, 2):  # any order, any slice
        parts = [ExampleStream(Counting(), seed=5, batch_size=4).batch(step, i, i + 2) for i in (0, 2)]
        assert torch.equal(torch.cat([b.x_0[:, 0] for b, _ in parts]), whole[step])
        _, draws = stream.batch(step, 0, 4)
        assert torch.equal(torch.cat([d.uniform(3) for _, d in parts]), draws.uniform(3))
    assert not torch.equal(ExampleStream(Counting(), seed=6, batch_size=4).indices(0, 10), everything[:10])


def test_files_written_in_pieces_are_safetensors_with_the_right_checksum(tmp_path):
    tensors = {
        "a": torch.randn(3, 4), "b": torch.tensor(2.5, dtype=torch.float64), "c": torch.arange(6).view(2, 3).T,
        "d": torch.zeros(0, 2, dtype=torch.bfloat16), "e": torch.tensor([True, False]),
    } | {str(dtype): torch.tensor([[1, 0, 3]]).to(dtype) for dtype in DTYPES}  # fmt: skip
    entries = [(n, t.dtype, tuple(t.shape)) for n, t in tensors.items()]
    digest = write_safetensors(tmp_path / "x", entries, iter(tensors.values()))
    assert digest == sha256_of(tmp_path / "x")
    loaded = load_file(tmp_path / "x")
    assert all(torch.equal(loaded[n], t) and loaded[n].dtype == t.dtype for n, t in tensors.items())


def test_metrics_rows_widen_and_end_where_a_run_resumes(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.append(1, {"loss": 1.5})
    file.append(2, {"loss": 0.1, "extra": 3.0})
    file.append(3, {"loss": 1e-9})
    assert file.path.read_text() == "step,loss,extra\n1,1.5,\n2,0.1,3.0\n3,1e-09,\n"
    with open(file.path, "a") as cut_off:
        cut_off.write("4,0.")
    resumed = MetricsFile(file.path)
    resumed.truncate(2)
    resumed.append(3, {"loss": 2.0})
    assert file.path.read_text() == "step,loss,extra\n1,1.5,\n2,0.1,3.0\n3,2.0,\n"


def test_running_means_continue_from_their_state():
    terms = [{"loss": torch.rand(4), "part": torch.rand(4)} for _ in range(3)]
    terms[2]["rare"] = torch.full((4,), 7.0)
    whole, before, after = (RunningMeans(torch.device("cpu")) for _ in range(3))
    assert whole.read() == {}
    for term in terms:
        whole.add(term, 4)
    before.add(terms[0], 4)
    after.load(json.loads(json.dumps(before.state())))
    for term in terms[1:]:
        after.add(term, 4)
    expected = whole.read()
    assert after.read() == expected and whole.read() == {} and expected["rare"] == 7.0
    assert expected["loss"] == pytest.approx(torch.cat([t["loss"] for t in terms]).mean().item())


class Layers(Objective):
    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict({"trunk": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
        self.model["trunk"].bias.requires_grad_(False)
        self.critic = nn.Linear(2, 2)

    def forward(self, batch, draws, step):
        raise NotImplementedError


def test_multipliers_and_betas_become_parameter_groups():
    options = OptimizerOptions(**ADAMW, lr_multipliers={"head": 5.0, "weight": 2.0}, betas_of={"critic": (0.0, 0.9)})
    groups = parameter_groups(Layers(), options)
    own = tuple(options.betas)
    assert [(g["lr_multiplier"], g["betas"], g["apart"], len(g["params"])) for g in groups] == [
        (2.0, own, False, 1),
        (10.0, own, False, 1),
        (5.0, own, False, 1),
        (2.0, (0.0, 0.9), True, 1),
        (1.0, (0.0, 0.9), True, 1),
    ]
    with pytest.raises(SpecError, match="lr_multipliers: no trainable parameter's name contains 'hed'"):
        parameter_groups(Layers(), OptimizerOptions(**ADAMW, lr_multipliers={"hed": 5.0}))
    with pytest.raises(SpecError, match="betas_of: no trainable parameter's name contains 'hed'"):
        parameter_groups(Layers(), OptimizerOptions(**ADAMW, betas_of={"hed": (0.0, 0.9)}))


def test_batches_divide_over_ranks_or_are_refused():
    options = options_of(batch_size=24, micro_batch_size=4)
    assert [options.micro_batches(n) for n in (1, 2, 3)] == [(4, 6), (4, 3), (4, 2)]
    assert options_of(batch_size=24, micro_batch_size=None).micro_batches(2) == (12, 1)
    with pytest.raises(SpecError, match="24 examples do not divide over 5 ranks"):
        options.micro_batches(5)
    with pytest.raises(SpecError, match="micro_batch_size: 5 does not divide a rank's 12"):
        options_of(batch_size=24, micro_batch_size=5).micro_batches(2)


def test_deepspeeds_configuration_passes_through_with_what_the_options_say():
    options = options_of(batch_size=8, micro_batch_size=2, clip=0.5, precision="bf16")
    section = {"zero_optimization": {"stage": 2}, "wall_clock_breakdown": True}
    config = deepspeed_config(section, options, 2)
    assert config["zero_optimization"] == {"stage": 2} and config["wall_clock_breakdown"] and config["bf16"]["enabled"]
    assert (config["train_batch_size"], config["gradient_accumulation_steps"], config["gradient_clipping"]) == (
        8,
        2,
        0.5,
    )
    assert section == {"zero_optimization": {"stage": 2}, "wall_clock_breakdown": True}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"optimizer": {"type": "Adam"}}, "train.optimizer"),
        ({"zero_optimization": {"stage": 4}}, "expected 0, 1, 2 or 3, found 4"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "offload_param needs stage 3"),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, "offload_optimizer needs stage 1"),
    ],
)
def test_combinations_that_cannot_run_are_refused(section, message):
    with pytest.raises(SpecError, match=message):
        deepspeed_config(section, options_of(batch_size=1, micro_batch_size=None), 1)


def test_a_changed_spec_is_told_on_resumption(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    assert folder.record_start({"train": {"steps": 5, "lr": 1}, "seed": 0}, {}) == []
    folder.record_end(step=5)
    assert folder.record_start({"train": {"steps": 9, "lr": 1}, "data": "x"}, {}) == ["train.steps", "seed", "data"]
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]) == 2
    assert changed_keys({"a": [1, 2]}, {"a": [1, 2]}) == []


def test_the_end_of_a_run_is_recorded_where_its_record_was_removed_meanwhile(tmp_path):
    folder, file = RunFolder(tmp_path / "run", resume=False), tmp_path / "run" / "run.json"
    folder.record_start({"seed": 0}, {"ranks": 1})
    begun = json.loads(file.read_text())["sessions"][0]
    file.unlink()
    folder.record_end(step=5)
    (session,) = json.loads(file.read_text())["sessions"]
    assert session["step"] == 5 and {key: session[key] for key in begun} == begun


def test_the_seconds_of_a_killed_session_count_to_its_last_checkpoint(tmp_path, monkeypatch):
    def session(start, checkpoints, end=None):
        monkeypatch.setattr(time, "time", lambda: start)
        folder = RunFolder(tmp_path / "run", resume=True)
        folder.record_start({}, {})
        for now in checkpoints:
            monkeypatch.setattr(time, "time", lambda now=now: now)
            folder.record_checkpoint(step=now)
        if end is not None:
            monkeypatch.setattr(time, "time", lambda: end)
            folder.record_end(step=end, finished=True)
        folder.close()

    session(100.0, [110.0, 130.0])  # killed at some time after 130
    session(200.0, [])  # killed before its first checkpoint
    session(300.0, [305.0], end=306.0)
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [entry.get("wall_clock_s") for entry in stored["sessions"]] == [30.0, None, 6.0]
    assert trained_seconds(tmp_path / "run") == 36.0
    assert [("end" in entry, entry.get("step")) for entry in stored["sessions"]] == [
        (False, 130.0),
        (False, None),
        (True, 306.0),
    ]


def test_a_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(TrainingError, match="is a file"):
        RunFolder(tmp_path / "run", resume=False)
