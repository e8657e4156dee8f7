"""Checks of backbones and teachers."""

import copy

import torch
from torch import Tensor

from di4c.contracts import Backbone, Draws, Prediction, Teacher
from di4c.contracts.backbone import backbone_lacks
from di4c.contracts.teacher import teacher_lacks
from di4c.engine.dropout import insert_example_dropout
from di4c.testing.expected import all_at, data_tokens, require
from di4c.testing.processes import check_process


def check_backbone(backbone: Backbone, *, num_positions: int, num_states: int, num_classes: int | None = None) -> None:
    """Shapes of features and logits; chunks of rows give what the whole does; an `affine` output head is; dropout is by modules."""
    require((fault := backbone_lacks(backbone)) is None, str(fault))
    x_t, t, cond = _inputs(num_positions, num_states, num_classes)
    h = backbone(x_t, t, cond)
    require(h.shape == (3, num_positions, backbone.width), f"features must be [B, D, width]; found {tuple(h.shape)}")
    rows = torch.arange(x_t.numel())
    _check_dropout(copy.deepcopy(backbone).train(), x_t, t, cond)
    flat = h.flatten(0, 1)[:, None]
    logits = backbone.readout(flat, rows % num_positions, x_t.flatten())
    require(logits.shape == (len(rows), 1, num_states), f"readout must give [P, M, S]; found {tuple(logits.shape)}")
    some = rows[1::3]
    chunk = backbone.readout(flat[some], some % num_positions, x_t.flatten()[some])
    require(torch.allclose(chunk, logits[some], atol=1e-4), "a chunk of rows must read out as the whole does")
    if getattr(backbone.readout, "affine", False):
        again = backbone.readout(
            flat, reduction=lambda h, w, b: (affine_logits(h, w, b, rows % num_positions, num_states),)
        )[0]
        require(torch.allclose(again, logits, atol=1e-4), "readout says `affine` but does not compute h·Wᵀ + b")


def _check_dropout(backbone: Backbone, x_t: Tensor, t: Tensor, cond: Tensor | None) -> None:
    """In training, where masks belong to examples, features do not depend on how the batch is split."""
    examples = insert_example_dropout(backbone)

    def features(first: int, end: int) -> Tensor:
        examples.first, examples.count = first, end - first
        torch.manual_seed(0)
        return backbone(x_t[first:end], t[first:end], None if cond is None else cond[first:end])

    with torch.random.fork_rng(), torch.no_grad():
        whole, parts = features(0, len(x_t)), [features(0, 1), features(1, len(x_t))]
    message = (
        "in training the features depend on how the batch is split: dropout must be by nn.Dropout modules, on tensors [B·n, …]; "
        "nn.MultiheadAttention's is not, so in a layer that has one: layer.self_attn.dropout = 0.0"
    )
    require(torch.allclose(torch.cat(parts), whole, atol=1e-4), message)


def affine_logits(h: Tensor, weight: Tensor, bias: Tensor | None, positions: Tensor, num_states: int) -> Tensor:
    """h·Wᵀ + b in the words of the Reduction contract: [P, M, S] from h [P, M, H] at positions [P]."""
    logits = h @ weight[:num_states].T
    if bias is None:
        return logits
    return logits + (bias[:num_states] if bias.dim() == 1 else bias[positions, None, :num_states])


def _inputs(num_positions: int, num_states: int, num_classes: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
    draws = Draws(0, count=3)
    cond = draws.integers(num_classes) if num_classes else None
    return draws.integers(num_states, num_positions), draws.uniform(), cond


def check_teacher(teacher: Teacher, *, num_classes: int | None = None) -> None:
    """Its process and backbone hold their contracts; predictions normalise, carry no gradient and do not change; students
    start from it without sharing its weights, and work in bfloat16."""
    require((fault := teacher_lacks(teacher)) is None, str(fault))
    check_process(teacher.process, positions=teacher.num_positions)
    teacher.freeze()
    sizes = {"num_positions": teacher.num_positions, "num_states": teacher.process.num_states}
    check_backbone(teacher.backbone, **sizes, num_classes=num_classes)
    draws = Draws(0, count=3)
    cond = draws.integers(num_classes) if num_classes else None
    x_0 = data_tokens(teacher.process, draws, teacher.num_positions)
    x_t = teacher.process.corrupt(x_0, all_at(3, 0.7), draws)
    prediction = teacher.predict(x_t, all_at(3, 0.7), cond)
    rows = torch.arange(x_t.numel())
    log_p = prediction.log_probs(rows)
    require(
        log_p.shape == (len(rows), 1, teacher.process.num_states),
        f"predictions must read out as [P, 1, S]; found {tuple(log_p.shape)}",
    )
    require(
        log_p.isfinite().all(), "log-probabilities must be finite; use di4c.contracts.LOG_ZERO for impossible states"
    )
    require((log_p.exp().sum(-1) - 1).abs().max() < 1e-4, "probabilities do not sum to 1 over the states")
    require(not log_p.requires_grad, "a teacher's prediction must carry no gradient")
    again = teacher.predict(x_t, all_at(3, 0.7), cond).log_probs(rows)
    require(torch.equal(log_p, again), "two predictions at the same x_t differ: no randomness inside a forward")
    student = teacher.student_backbone()
    require(all(p.requires_grad for p in student.parameters()), "student_backbone must be trainable")
    shared = {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.backbone.parameters()}
    require(not shared, "student_backbone shares weights with the teacher; copy them")
    _check_in_bfloat16(student.eval(), teacher, x_t, cond)


@torch.no_grad()
def _check_in_bfloat16(backbone: Backbone, teacher: Teacher, x_t: Tensor, cond: Tensor | None) -> None:
    """A student's backbone, its parameters cast as `train.precision: bf16` casts them, gives normalised log-probabilities near those in float32."""
    rows = torch.arange(x_t.numel())

    def probs() -> Tensor:
        h = backbone(x_t, all_at(len(x_t), 0.7), cond)
        prediction = Prediction(h, x_t, backbone.readout, teacher.parameterisation, teacher.process.num_states)
        return prediction.log_probs(rows).double().exp()

    expected = probs()
    for parameter in backbone.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    try:
        found = probs()
    except RuntimeError as error:
        raise AssertionError(f"a backbone whose weights are bfloat16 must take float64 times: {error}") from error
    normalised = found.isfinite().all() and ((found.sum(-1) - 1).abs() < 1e-3).all()
    require(normalised, "in bfloat16 probabilities are not finite, or do not sum to 1")
    distance = (found - expected).abs().sum(-1).mean() / 2
    require(
        distance < 0.1,
        f"in bfloat16 predictions differ by {distance:.2f} in total variation: keep tables and times in float32",
    )
