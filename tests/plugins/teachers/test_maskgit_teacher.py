"""Published MaskGIT checkpoints and Di4C students of it, through files of the same layout with small random weights."""

import pytest
import torch

from di4c.errors import CheckpointError, SpecError
from di4c.testing import check_sampler, check_teacher
from di4c_plugins.backbones.maskgit import MaskGITBackbone
from di4c_plugins.processes.maskgit import MaskGITProcess
from di4c_plugins.samplers.halton import HaltonSampler
from di4c_plugins.samplers.maskgit import MaskGITSampler
from di4c_plugins.teachers.maskgit import Di4CMaskGIT, MaskGITTeacher

D, CODES, CLASSES = 4, 6, 3
PROCESS = MaskGITProcess(CODES)


def published(folder, *, student=False, prefix="", num_classes=CLASSES, name="current.pth"):
    """A file as the published training code writes it: output head tied, hence held once; a student's has its λ projection."""
    torch.manual_seed(0)
    network = MaskGITBackbone(D, CODES + 1, num_classes=num_classes, width=32, depth=2, heads=16, mlp_width=24)
    state = {prefix + key: value.detach().clone() for key, value in network.named_parameters()}
    if student:
        for index, (rows, columns) in {"0": (512, 128), "2": (32, 512)}.items():
            state[f"{prefix}latent_projection.{index}.weight"] = torch.randn(rows, columns)
            state[f"{prefix}latent_projection.{index}.bias"] = torch.randn(rows)
    path = folder / name
    content = {"iter": 100, "global_epoch": 2, "model_state_dict": state, "optimizer_state_dict": {"state": {}}}
    torch.save(content, path)
    return str(path), network.eval()


def logits(teacher):
    x_t = torch.full((2, D), PROCESS.mask_index)
    return teacher.predict(x_t, torch.ones(2), torch.tensor([0, -1])).log_p0()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_published_file_is_enough(tmp_path, prefix):
    path, network = published(tmp_path, prefix=prefix)
    teacher = MaskGITTeacher(PROCESS, D, num_classes=CLASSES, path=path).freeze()
    x_t = torch.full((2, D), PROCESS.mask_index)
    expected = network(x_t, torch.ones(2), torch.tensor([0, -1]))
    torch.testing.assert_close(teacher.backbone(x_t, torch.ones(2), torch.tensor([0, -1])), expected)
    assert teacher.sizes == {"width": 32, "depth": 2, "heads": 16, "mlp_width": 24}
    entry = teacher.portable_entry({"name": "maskgit", "path": path})
    assert entry == {"name": "maskgit", "backbone": {"name": "maskgit", **teacher.sizes}}


def test_the_student_is_averaged_over_lambda(tmp_path):
    path, _ = published(tmp_path, student=True)
    teacher = Di4CMaskGIT(PROCESS, D, num_classes=CLASSES, path=path, atoms=3).freeze()
    x_t = torch.full((2, D), PROCESS.mask_index)
    lam = torch.tensor([1 / 6, 1 / 2, 5 / 6]).expand(2, 3).unsqueeze(-1)
    context = teacher.head.context(lam)
    h = teacher.backbone(x_t, torch.ones(2), torch.tensor([0, -1]), context).unflatten(0, (2, 3))
    rows = torch.arange(D)
    per_component = teacher.backbone.readout(h.movedim(2, 1).flatten(0, 1), rows.repeat(2), x_t.flatten()).softmax(-1)
    torch.testing.assert_close(logits(teacher).exp(), per_component.mean(1).unflatten(0, (2, D)))
    assert torch.equal(logits(teacher), logits(teacher))


def test_teachers_and_samplers_keep_the_contract(tmp_path):
    for kind, student in ((MaskGITTeacher, False), (Di4CMaskGIT, True)):
        path, _ = published(tmp_path, student=student)
        teacher = kind(PROCESS, D, num_classes=CLASSES, path=path).freeze()
        check_teacher(teacher)
        check_sampler(MaskGITSampler(PROCESS), teacher)
        check_sampler(HaltonSampler(PROCESS), teacher)


def test_a_student_of_the_teacher_starts_from_its_weights(tmp_path):
    path, _ = published(tmp_path)
    teacher = MaskGITTeacher(PROCESS, D, num_classes=CLASSES, path=path).freeze()
    backbone = teacher.student_backbone()
    assert backbone.pos_emb.requires_grad and torch.equal(backbone.pos_emb, teacher.backbone.pos_emb)
    assert backbone.readout.weight is backbone.tok_emb.weight


def test_a_skeleton_has_the_parameters_and_no_weights_are_read(tmp_path):
    path, _network = published(tmp_path, student=True)
    blank = MaskGITBackbone(D, CODES + 1, num_classes=CLASSES, width=32, depth=2, heads=16, mlp_width=24)
    teacher = Di4CMaskGIT(PROCESS, D, path=path, backbone=blank, weights=False)
    assert teacher.backbone is blank and teacher.head.projection[2].weight.shape == (32, 512)


def test_what_does_not_fit_is_told(tmp_path):
    teacher, _ = published(tmp_path)
    student, _ = published(tmp_path, student=True, name="student.pth")
    with pytest.raises(CheckpointError, match="λ projection belongs to a Di4C student"):
        MaskGITTeacher(PROCESS, D, num_classes=CLASSES, path=student)
    with pytest.raises(CheckpointError, match="no λ projection: MaskGIT itself"):
        Di4CMaskGIT(PROCESS, D, num_classes=CLASSES, path=teacher)
    with pytest.raises(CheckpointError, match="number of classes"):
        MaskGITTeacher(PROCESS, D, num_classes=5, path=teacher)
    with pytest.raises(CheckpointError, match="one row a cell"):
        MaskGITTeacher(PROCESS, 9, num_classes=CLASSES, path=teacher)
    with pytest.raises(CheckpointError, match="no such file.*hub:owner/name/path"):
        MaskGITTeacher(PROCESS, D, path=str(tmp_path / "absent.pth"))
    with pytest.raises(SpecError, match="`path` is missing"):
        MaskGITTeacher(PROCESS, D)
    torch.save({"model_state_dict": {"other": torch.ones(1)}}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="not MaskGIT's network"):
        MaskGITTeacher(PROCESS, D, path=str(tmp_path / "foreign.pth"))
