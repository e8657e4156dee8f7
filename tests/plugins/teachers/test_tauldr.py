"""tauLDR's containers, as files of the published layout with small random weights."""

import pytest
import torch

from di4c.contracts import Context
from di4c.errors import CheckpointError, SpecError
from di4c_plugins.backbones.tauldr_unet import TauLDRUNet
from di4c_plugins.processes.discretised_gaussian import DiscretisedGaussian
from di4c_plugins.teachers.tauldr import CIFAR10, Di4CPixels, TauLDR

S, D = 8, 16
PROCESS = DiscretisedGaussian(S, rate_sigma=2.0, target_sigma=8.0, time_base=3.0, time_exponential=100.0)


def a_unet(seed=0, **options):
    torch.manual_seed(seed)
    return TauLDRUNet(
        D, S, shape=[1, 4, 4], channels=8, multipliers=[1, 2], res_blocks=1, attention_at=1, dropout=0.0, **options
    )


def write(path, unet, *, shadows="ema", prefix="net."):
    """A checkpoint of `unet` whose EMA weights are its weights plus 1."""
    model = {prefix + key: value for key, value in unet.state_dict().items()}
    model |= {"ema_decay": 0.9999, "ema_num_updates": 10}
    if shadows:
        model["ema_shadow_params"] = [value + 1 for value in unet.state_dict().values()]
    torch.save({"model": model, "optimizer": {"state": {}, "param_groups": []}, "n_iter": 10}, path)
    return str(path)


@pytest.mark.parametrize("prefix", ["net.", "net.module."])
def test_ema_and_raw_weights(tmp_path, prefix):
    unet = a_unet()
    path = write(tmp_path / "ckpt.pt", unet, prefix=prefix)
    raw = unet.state_dict()
    for ema, shift in ((True, 1), (False, 0)):
        teacher = TauLDR(PROCESS, D, path=path, ema=ema, backbone=a_unet(1))
        for key, value in teacher.backbone.state_dict().items():
            assert torch.equal(value, raw[key] + shift)


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("student_from", ["raw", "ema"])
def test_the_weights_a_student_starts_from(tmp_path, ema, student_from):
    unet = a_unet()
    path = write(tmp_path / "ckpt.pt", unet)
    teacher = TauLDR(PROCESS, D, path=path, ema=ema, student_from=student_from, backbone=a_unet(1)).freeze()
    student = teacher.student_backbone()
    assert student.lam_embed_dim == 8 and all(p.requires_grad for p in student.parameters())
    for key, value in unet.state_dict().items():
        assert torch.equal(student.state_dict()[key], value + (student_from == "ema"))


def test_a_student_file_as_teacher_is_the_average_over_lambda(tmp_path):
    unet = a_unet(lam_embed_dim=8).eval()
    path = write(tmp_path / "student.pt", unet, shadows=None)
    options = {"ema": False, "student_from": "raw", "backbone": a_unet(1, lam_embed_dim=8)}
    teacher = Di4CPixels(PROCESS, D, path=path, atoms=3, **options).freeze()
    x_t, t = torch.randint(S, (2, D)), torch.tensor([0.3, 0.8])
    probs = []
    for k in range(3):
        lam = torch.full((2, 1, 1), (k + 0.5) / 3)
        features = unet(x_t, t, context=teacher.head.context(lam))
        probs.append(unet.readout(features, None, None).softmax(-1))
    got = teacher.predict(x_t, t)
    assert got.shape == (2, 1, D)
    torch.testing.assert_close(got.log_p0().exp(), torch.stack(probs).mean(0), rtol=1e-4, atol=1e-6)
    student = teacher.student_backbone()
    context = teacher.head.context(torch.full((2, 1, 1), 0.3))
    torch.testing.assert_close(student(x_t, t, context=context), unet(x_t, t, context=context))
    assert isinstance(context, Context)


def test_messages_of_files_that_do_not_fit(tmp_path):
    student = write(tmp_path / "student.pt", a_unet(lam_embed_dim=8))
    plain = write(tmp_path / "plain.pt", a_unet(), shadows=None)
    other = write(tmp_path / "other.pt", a_unet(), prefix="unet.")
    with pytest.raises(CheckpointError, match="di4c-pixels"):
        TauLDR(PROCESS, D, path=student, backbone=a_unet())
    with pytest.raises(CheckpointError, match="teacher tauldr"):
        Di4CPixels(PROCESS, D, path=plain, ema=False, student_from="raw", backbone=a_unet(lam_embed_dim=8))
    with pytest.raises(CheckpointError, match="no EMA shadows"):
        TauLDR(PROCESS, D, path=plain, backbone=a_unet())
    with pytest.raises(CheckpointError, match="not a tauLDR checkpoint"):
        TauLDR(PROCESS, D, path=other, backbone=a_unet())
    with pytest.raises(CheckpointError, match="no such file"):
        TauLDR(PROCESS, D, path=str(tmp_path / "absent.pt"), backbone=a_unet())
    with pytest.raises(SpecError, match="path"):
        TauLDR(PROCESS, D, backbone=a_unet())


def test_without_weights_no_file_is_read():
    teacher = TauLDR(PROCESS, D, backbone=a_unet(), weights=False)
    entry = {"name": "tauldr", "path": "x.pt", "ema": True, "backbone": {"name": "tauldr-unet"}}
    assert teacher.portable_entry(entry) == {"name": "tauldr", "backbone": {"name": "tauldr-unet"}}


def test_the_published_network_has_the_published_size():
    """35 749 766 parameters, 39 066 630 with λ layers: the reference's networks at its CIFAR-10 settings."""
    for lam_embed_dim, count in ((0, 35_749_766), (128, 39_066_630)):
        with torch.device("meta"):
            unet = TauLDRUNet(3072, 256, **CIFAR10, lam_embed_dim=lam_embed_dim)
        assert sum(p.numel() for p in unet.parameters()) == count
