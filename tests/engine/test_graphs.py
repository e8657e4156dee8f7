"""Passes without gradient are replayed where that is right; recorded by a stand-in, as there is no GPU."""

import copy
import gc
import io
import warnings
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from di4c.contracts import Context
from di4c.engine import graphs
from di4c.engine.dropout import insert_example_dropout
from di4c.engine.graphs import replay_backbones
from di4c.engine.shared_base import share_base
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from tests.engine.recording import Recorder
from tests.engine.toy import options_of
from tests.gpu.cases import stirred, text_student, text_teacher

POSITIONS, STATES, WIDTH = 8, 40, 16


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def backbone(recorder):
    torch.manual_seed(0)
    made = MdlmDiT(POSITIONS, STATES, width=WIDTH, depth=2, heads=2, conditioning_width=8, dropout=0.1)
    made = stirred(made).eval()
    assert replay_backbones(made, nn.Sequential(made), recorder=lambda: recorder) == 1
    return made


def inputs(batch: int = 2, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(STATES, (batch, POSITIONS), generator=generator), torch.rand(batch, generator=generator)


def plain(backbone, *arguments):
    return type(backbone).forward(backbone, *arguments)


@torch.no_grad()
def test_the_second_pass_is_recorded_and_later_ones_replayed_into_tensors_of_their_own(backbone, recorder):
    found = [backbone(*inputs(seed=seed)) for seed in range(4)]
    assert recorder.counts == (1, 3)
    for seed, features in enumerate(found):
        assert torch.equal(features, plain(backbone, *inputs(seed=seed)))
        assert features.data_ptr() != recorder.outputs[0].data_ptr()


@torch.no_grad()
def test_changed_weights_are_seen_where_they_lie_and_moved_ones_recorded_anew(backbone, recorder):
    x = inputs()
    backbone(*x), backbone(*x)
    backbone.blocks[0].attn_out.weight.mul_(2)
    assert torch.equal(backbone(*x), plain(backbone, *x)) and recorder.counts == (1, 2)
    weight = backbone.blocks[0].attn_out.weight
    weight.data = 3 * weight.data
    assert torch.equal(backbone(*x), plain(backbone, *x)) and recorder.counts == (1, 2)
    backbone.blocks[1].attn_out.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH))
    for _ in range(3):
        assert torch.equal(backbone(*x), plain(backbone, *x))
    assert recorder.counts == (2, 4)


@torch.no_grad()
def test_weights_that_keep_moving_are_left_alone(backbone, recorder):
    weight = backbone.blocks[0].attn_out.weight
    for _ in range(graphs.MOST_MOVES + 2):
        weight.data = weight.data.clone()
        backbone(*inputs()), backbone(*inputs())
    before = recorder.counts
    for _ in range(3):
        backbone(*inputs())
    assert recorder.counts == before and before[0] == graphs.MOST_MOVES + 1


@torch.no_grad()
@pytest.mark.parametrize("head", ["token", "adaln", "late", "readout"])
@pytest.mark.parametrize("at_a_time", [None, 2])
def test_every_head_is_predicted_as_before(head, at_a_time, recorder):
    """With groups of components the trunk and each group are passes of their own; the last group is smaller."""
    teacher = text_teacher(POSITIONS, STATES)
    student = text_student(teacher, head).eval()
    lam = torch.rand(2, 5, 1)
    wanted = student.predict(*inputs(), None, lam, at_a_time=at_a_time).features
    replay_backbones(student, recorder=lambda: recorder)
    for _ in range(3):
        assert torch.equal(student.predict(*inputs(), None, lam, at_a_time=at_a_time).features, wanted)
    groups = head in ("token", "adaln", "late") and at_a_time is not None
    assert recorder.recorded == (3 if groups else 1)


@torch.no_grad()
def test_what_a_graph_depends_on_is_its_key(backbone, recorder):
    x_t, t = inputs()
    tokens = Context(3, tokens=torch.rand(6, 1, WIDTH))
    kinds = [
        (x_t, t), (x_t, t.double()), inputs(batch=3), (x_t, t, None, tokens), (x_t, t, None, replace(tokens, start=1)),
        (x_t, t, None, replace(tokens, only_trunk=True)), (x_t, t, None, replace(tokens, tokens=None)),
    ]  # fmt: skip
    for turn in range(3):
        for number, kind in enumerate(kinds):
            ours, theirs = graphs._tensors(backbone(*kind)), graphs._tensors(plain(backbone, *kind))
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
            assert recorder.recorded == (0, number + 1, len(kinds))[turn]


@torch.no_grad()
@pytest.mark.parametrize("first", [True, False])
def test_a_graph_serves_inside_and_outside_of_inference_mode(first, backbone, recorder):
    for inside in (first, first, not first, first):
        with torch.inference_mode(inside), torch.no_grad():
            found = backbone(*inputs(seed=int(inside)))
            assert torch.equal(found, plain(backbone, *inputs(seed=int(inside)))) and found.is_inference() == inside
    assert recorder.counts == (1, 3)


@torch.no_grad()
def test_there_are_only_so_many_graphs(backbone, recorder):
    for _ in range(3):
        for batch in range(1, graphs.MOST_GRAPHS + 4):
            assert torch.equal(backbone(*inputs(batch)), plain(backbone, *inputs(batch)))
    assert recorder.counts == (graphs.MOST_GRAPHS, 2 * graphs.MOST_GRAPHS)


def test_passes_that_cannot_be_replayed_run_as_they_are(backbone, recorder, monkeypatch):
    def passes(*given):
        for _ in range(3):
            backbone(*(given or inputs()))

    passes()  # with gradient
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            passes()
        recorder.free = False
        passes()
        recorder.free, recorder.kind = True, "cuda"
        passes()
        recorder.kind = "cpu"
        backbone.train()
        passes()
        backbone.replayable = False
        backbone.eval()
        passes()
        del backbone.replayable
        monkeypatch.setattr(graphs, "MOST_TOKENS", 2 * POSITIONS * 2)
        late = Context(3, tokens=torch.rand(6, 1, WIDTH), start=0)
        passes(*inputs(), None, late)
        assert recorder.counts == (0, 0)
        passes(*inputs(), None, replace(late, start=1))  # (1 + 3)/2 rows on average
        passes()
        assert recorder.recorded == 2


@torch.no_grad()
def test_dropout_that_is_put_in_later_is_seen(backbone, recorder):
    backbone(*inputs()), backbone(*inputs()), backbone(*inputs())
    insert_example_dropout(backbone)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    assert not torch.equal(backbone(*inputs()), backbone(*inputs())) and recorder.counts == (1, 2)


@torch.no_grad()
def test_a_network_in_training_without_dropout_is_replayed(backbone, recorder):
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    backbone.train()
    for _ in range(3):
        assert torch.equal(backbone(*inputs()), plain(backbone, *inputs()))
    assert recorder.counts == (1, 2)


@torch.no_grad()
def test_a_recording_that_fails_is_told_once_and_passes_go_on(backbone, recorder):
    recorder.error = RuntimeError("operation not permitted when stream is capturing")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for batch in (2, 2, 2, 3, 3, 3):
            assert torch.equal(backbone(*inputs(batch)), plain(backbone, *inputs(batch)))
    assert len(said) == 1 and "MdlmDiT" in str(said[0].message) and "not permitted" in str(said[0].message)


@torch.no_grad()
def test_copies_and_files_know_nothing_of_it_and_graphs_go_with_the_backbone(backbone, recorder):
    names = list(MdlmDiT(POSITIONS, STATES, width=WIDTH, depth=2, heads=2, conditioning_width=8).state_dict())
    backbone(*inputs()), backbone(*inputs())
    file = io.BytesIO()
    torch.save(backbone, file)
    file.seek(0)
    for other in (copy.deepcopy(backbone), backbone.for_student(), torch.load(file, weights_only=False)):
        assert "forward" not in vars(other) and list(other.state_dict()) == names
        assert torch.equal(other.eval()(*inputs()), backbone(*inputs()))
    assert list(backbone.state_dict()) == names


def test_adapters_on_a_shared_base_are_left_alone_as_a_pass_depends_on_which_are_on(recorder):
    pytest.importorskip("peft")
    teacher = text_teacher(POSITIONS, STATES)
    backbone = share_base(teacher, rank=2, targets=["attn_qkv"], alpha=4.0)
    assert replay_backbones(backbone, teacher.network, recorder=lambda: recorder) == 0


def test_a_training_replays_but_where_it_is_told_not_to_or_bits_are_promised():
    assert options_of().replays
    assert not any(options_of(**{key: key != "graphs"}).replays for key in ("graphs", "compile", "deterministic"))


def fixed(outputs):
    """What a graph keeps: outputs, not the function."""
    return lambda: outputs


@torch.no_grad()
def test_nothing_keeps_a_backbone_and_its_graphs_alive(recorder, monkeypatch):
    monkeypatch.setattr(recorder, "record", lambda function, device: fixed(function()))
    made = text_teacher(POSITIONS, STATES).backbone
    replay_backbones(made, recorder=lambda: recorder)
    made(*inputs()), made(*inputs()), made(*inputs())
    replays, gone = weakref.ref(made.forward), weakref.ref(made)
    gc.disable()
    try:
        del made
        assert gone() is None and replays() is None
    finally:
        gc.enable()


@torch.no_grad()
@pytest.mark.parametrize("watch", ["hook", "pre-hook", "global hook", "forward"])
def test_a_pass_that_is_watched_runs_as_it_is(backbone, recorder, watch):
    """What a hook does, or a forward of its own, is seen in every pass as long as it is there; then the graph serves again."""
    x = inputs()
    for _ in range(3):
        before = backbone(*x)
    layer, calls = backbone.blocks[1].attn_out, []
    if watch == "forward":
        layer.forward = lambda h: calls.append(1) or nn.Linear.forward(layer, h) * 2
    elif watch == "hook":
        handle = layer.register_forward_hook(lambda module, given, result: calls.append(1) or result * 2)
    elif watch == "pre-hook":
        handle = layer.register_forward_pre_hook(lambda module, given: calls.append(1) or (given[0] * 2,))
    else:
        seen = lambda module, given, result: (calls.append(1) or result * 2) if module is layer else None
        handle = nn.modules.module.register_module_forward_hook(seen)
    for _ in range(2):
        assert torch.equal(backbone(*x), plain(backbone, *x)) and not torch.equal(backbone(*x), before)
    assert len(calls) == 6
    if watch == "forward":
        del layer.forward
    else:
        handle.remove()
    counts = recorder.counts
    assert torch.equal(backbone(*x), before) and recorder.counts[0] == counts[0] and recorder.counts[1] == counts[1] + 1
