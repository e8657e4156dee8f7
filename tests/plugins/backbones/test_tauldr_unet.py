"""The U-Net's own properties; its numbers are checked against reference cases in tests/golden."""

import itertools

import pytest
import torch

from di4c.contracts import Context
from di4c.errors import SpecError
from di4c_plugins.backbones.tauldr_unet import TauLDRUNet
from di4c_plugins.backbones.truncated_logistic import TruncatedLogistic
from di4c_plugins.heads.sinusoidal_embedding import SinusoidalEmbedding

SHAPE, D, S = [1, 4, 4], 16, 7
OPTIONS = {"shape": SHAPE, "channels": 8, "multipliers": [1, 2], "res_blocks": 1, "attention_at": 1, "dropout": 0.0}


def a_unet(**options):
    torch.manual_seed(0)
    return TauLDRUNet(D, S, **OPTIONS | options).eval()


@pytest.fixture
def student():
    """λ layers in use: lam_scale 1."""
    return a_unet(lam_embed_dim=8)


@pytest.fixture
def x_t():
    return torch.randint(S, (2, D), generator=torch.Generator().manual_seed(1))


T = torch.tensor([0.2, 0.9])


def embedding(components, seed=2):
    return torch.randn(2 * components, 8, generator=torch.Generator().manual_seed(seed))


def test_shapes_and_b_major_order(student, x_t):
    lam = embedding(3)
    h = student(x_t, T, context=Context(3, embedding=lam))
    assert h.shape == (6, D, 2) and h.dtype == torch.float32
    alone = student(x_t[1:], T[1:], context=Context(1, embedding=lam[4:5]))
    torch.testing.assert_close(h[4:5], alone, rtol=1e-4, atol=1e-5)


def test_every_position_sees_the_right_pixel():
    """μ = tanh(x + ·): with a network of zeros it is tanh of the centred pixel, in the order of the tokens."""
    unet = a_unet()
    for parameter in unet.output_modules[1].parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.arange(D)[None] % S
    torch.testing.assert_close(unet(x, T[:1])[0, :, 0], torch.tanh(2 * x[0] / (S - 1) - 1))


def test_lambda_from_a_later_block(student, x_t):
    """Blocks before `start` do not see λ: components agree with start = 0 only there; all starts give B·M rows."""
    outputs = [student(x_t, T, context=Context(2, embedding=embedding(2), start=n)) for n in range(student.depth)]
    assert all(h.shape == (4, D, 2) for h in outputs)
    assert not any(torch.allclose(a, b) for a, b in itertools.pairwise(outputs))
    same = embedding(1).repeat_interleave(2, 0)
    for start in (0, 3, student.depth - 1):
        h = student(x_t, T, context=Context(2, embedding=same, start=start))
        torch.testing.assert_close(h[::2], h[1::2])


def test_shared_trunk_runs_once_an_example(student, x_t):
    rows = []
    hooks = [
        block.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
        for block in student.downsampling_modules
    ]
    student(x_t, T, context=Context(3, embedding=embedding(3), start=2))
    for hook in hooks:
        hook.remove()
    assert rows == [2, 2, 2, 2]


def test_student_copy_has_the_teachers_function_where_lambda_is_silent(x_t):
    teacher = a_unet(lam_scale=0.0).requires_grad_(False)
    student = teacher.for_student()
    assert student.lam_embed_dim == student.embedding_width == 8
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert teacher.lam_embed_dim == 0 and not hasattr(teacher, "tlam_mix")
    h = student(x_t, T, context=Context(2, embedding=embedding(2)))
    torch.testing.assert_close(h, teacher(x_t, T).repeat_interleave(2, 0), rtol=1e-4, atol=1e-5)
    loud = a_unet(lam_scale=1.0).for_student()
    h = loud(x_t, T, context=Context(2, embedding=embedding(2)))
    assert (h[::2] - h[1::2]).abs().max() > 1e-3


def test_student_of_a_student_keeps_its_lambda_layers(student):
    copy = student.for_student()
    assert copy is not student
    for name, value in student.state_dict().items():
        assert torch.equal(copy.state_dict()[name], value)


def test_labels(x_t):
    unet = a_unet(num_classes=3)
    none = unet(x_t, T)
    torch.testing.assert_close(unet(x_t, T, torch.tensor([-1, -1])), none)
    labelled = unet(x_t, T, torch.tensor([2, -1]))
    assert not torch.allclose(labelled[0], none[0])
    torch.testing.assert_close(labelled[1], none[1])


def test_half_precision_weights_give_float32_features(student, x_t):
    h = student.bfloat16()(x_t, T, context=Context(1, embedding=embedding(1)))
    assert h.dtype == torch.float32 and h.isfinite().all()


def test_user_mistakes(x_t):
    with pytest.raises(SpecError, match="positions"):
        TauLDRUNet(15, S, **OPTIONS)
    with pytest.raises(SpecError, match="divisible by 8"):
        a_unet(multipliers=[1, 1, 1, 1])
    with pytest.raises(SpecError, match="multiples of 4"):
        a_unet(channels=6)
    with pytest.raises(SpecError, match="lam_embed_dim"):
        a_unet()(x_t, T, context=Context(1, embedding=embedding(1)))
    with pytest.raises(SpecError, match="0 to 7"):
        a_unet(lam_embed_dim=8)(x_t, T, context=Context(1, embedding=embedding(1), start=8))


def test_head_makes_the_published_sinusoid(student):
    lam = torch.rand(2, 3, 1, generator=torch.Generator().manual_seed(0))
    context = SinusoidalEmbedding(1, student).context(lam)
    assert context.components == 3 and context.embedding.shape == (6, 8)
    angles = lam.flatten()[:, None] * 1000 * torch.exp(torch.arange(4) * -torch.log(torch.tensor(10000.0)) / 3)
    torch.testing.assert_close(context.embedding, torch.cat([angles.sin(), angles.cos()], 1), rtol=0, atol=1e-4)
    assert SinusoidalEmbedding(2, student).context(torch.rand(2, 3, 2)).embedding.shape == (6, 8)
    with pytest.raises(SpecError, match="shared by 3"):
        SinusoidalEmbedding(3, student)


@pytest.mark.parametrize("symmetric", [False, True])
def test_truncated_logistic_is_the_logistic_mass_of_the_bins(symmetric):
    """Float64; bins with mass well above the floor of 1e-6."""
    h = torch.tensor([[[0.3, 1.5]], [[-0.8, 2.5]], [[0.0, 1.0]]], dtype=torch.float64)
    readout = TruncatedLogistic(8, symmetric=symmetric)
    edges = torch.linspace(-1, 1, 9, dtype=torch.float64)
    below = torch.sigmoid((edges - h[..., :1]) * torch.exp(2 - h[..., 1:]))
    mass = below.diff(dim=-1)
    got = readout(h, None, None)
    visible = mass > 1e-3
    torch.testing.assert_close(got.exp()[visible], mass[visible], rtol=2e-2, atol=0)
    assert got.isfinite().all()


def test_truncated_logistic_survives_extreme_scales():
    h = torch.tensor([[[0.9, -30.0]], [[-0.9, 30.0]], [[1.0, 0.0]]], requires_grad=True)
    logits = TruncatedLogistic(256)(h, None, None)
    logits.log_softmax(-1).sum().backward()
    assert logits.isfinite().all() and h.grad[1:].isfinite().all()
