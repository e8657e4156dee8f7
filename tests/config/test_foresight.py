"""What constructors say of a spec is told by `check`, in the words of `build`, before data or networks are there."""

import pytest
import torch
from torch import Tensor, nn

from di4c.config.build import build
from di4c.config.check import check
from di4c.config.foresight import Absent, NotYet
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.contracts import Teacher
from di4c.errors import Di4CError, RegistryError, SpecError
from tests.config.specs import DISTILL, EVAL, PRETRAIN, changed

UNIFORM = {"name": "uniform", "speed": 3.0}
CONSISTENCY = {"weight": 1.0, "estimator": "monte-carlo"}
STEP = {"distribution": "constant", "size": 0.25}
GUIDED = {"name": "halton", "guidance": 1e9}


@pytest.mark.parametrize(
    ("spec", "changes", "told"),
    [
        (DISTILL, {"objective__data__weight": -1}, "objective.data.weight: at least 0"),
        (DISTILL, {"objective__components": 0}, "objective.components: at least 1"),
        (DISTILL, {"objective__components": "all"}, "'all' needs a λ sampler with finitely many atoms"),
        (DISTILL, {"objective__label_dropout": 2}, r"objective.label_dropout: in \[0, 1\]"),
        (DISTILL, {"objective__chunk_bytes": 0}, "objective.chunk_bytes: at least 1"),
        (DISTILL, {"objective__reference": "teacher"}, "objective.reference: 'teacher' goes with"),
        (DISTILL, {"objective__data": None}, "at least one of data, consistency, distillation"),
        (DISTILL, {"objective__consistency": CONSISTENCY}, "needs objective.teacher_step and objective.targets"),
        (DISTILL, {"objective__targets": 1, "objective__teacher_step": STEP, "objective__consistency": CONSISTENCY | {"min_time": 2}},
         "objective.consistency.min_time 2 is above all times"),
        (DISTILL, {"objective__distillation": {"weight": 1, "max_time": 0}}, "objective.distillation.max_time 0 leaves none"),
        (DISTILL, {"objective__data__estimator": "own-component"}, "needs a sample's own λ, which data do not have"),
        (DISTILL, {"objective__full_noise": {"weight": 1}, "process": UNIFORM, "teacher__parameterisation": "raw"}, "full_noise is for processes with a mask"),
        (DISTILL, {"objective__time": {"name": "uniform", "low": 2}}, "times lie in"),
        (DISTILL, {"student": {"head": {"name": "sinusoidal-token", "features": 3}}}, "features is 3"),
        (PRETRAIN, {"process": UNIFORM}, "teacher.parameterisation: subs forbids the mask state, and Uniform has none"),
        (PRETRAIN, {"process": UNIFORM | {"speed": -1}, "teacher__parameterisation": "raw"}, "process: speed is -1"),
        (PRETRAIN, {"process": {"name": "mdlm", "corrupt_grid": -1}}, "process.corrupt_grid"),
        (PRETRAIN, {"process": {"name": "mdlm", "epsilon": 1}}, "noise 'log-linear': epsilon"),
        (PRETRAIN, {"process": {"name": "birth-death", "sigma_min": 0, "sigma_max": 1}, "teacher__parameterisation": "raw"}, "0 < sigma_min < sigma_max"),
        (PRETRAIN, {"objective__label_dropout": 2}, "objective.label_dropout"),
        (PRETRAIN, {"objective": {"name": "denoising", "cross_entropy": 0}}, "must not both be 0"),
        (PRETRAIN, {"objective": {"name": "masked-cross-entropy", "label_smoothing": 1}}, "objective.label_smoothing"),
        (PRETRAIN, {"teacher__backbone__heads": 3}, "backbone dit: width 16 over 3 heads"),
        (PRETRAIN, {"objective": DISTILL["objective"] | {"name": "di4c"}}, "objective: 'di4c'.* misses 'student', 'latent'"),
    ],
)  # fmt: skip
def test_check_tells_what_build_would(spec, changes, told):
    spec = Spec.from_dict(changed(spec, **changes))
    for act in (check, build):
        with pytest.raises(Di4CError, match=told):
            act(spec, Registry.default())


@pytest.mark.parametrize(
    ("sampler", "told"),
    [(GUIDED, "guidance is"), ({"name": "mdlm-ancestral", "end": 2}, "end is 2"), ({"name": "hybrid", "sampler": GUIDED, "teacher_steps": 1}, "guidance")],
)  # fmt: skip
def test_a_sampler_of_the_evaluation_is_told_before_the_training(sampler, told):
    with pytest.raises(SpecError, match=f"eval.sampler.*{told}"):
        check(Spec.from_dict(changed(DISTILL, eval=EVAL | {"sampler": sampler})), Registry.default())


def test_a_distillation_by_an_objective_of_pretraining_is_refused():
    """It trained the teacher to the end, and left an export of which no student could be loaded."""
    spec = Spec.from_dict(changed(DISTILL, objective=PRETRAIN["objective"] | {"name": "nelbo"}))
    with pytest.raises(SpecError, match="objective.name: 'nelbo' trains no student"):
        check(spec, Registry.default())


PLUGIN = """
from di4c.contracts.extending import extending
from di4c.errors import SpecError
from di4c.losses.objective import Di4C
from di4c.mixture.student import MixtureStudent
from di4c_plugins.processes.absorbing import Absorbing

DI4C_PLUGINS = {"processes": {"picky": "Picky"}, "objectives": {"curious": "Curious"}}

class Picky(Absorbing):
    def __init__(self, data_states):
        if data_states != 17:
            raise SpecError("only 17 states")
        super().__init__(data_states)

class Curious(Di4C):
    @extending(Di4C)
    def __init__(self, teacher, student, *, latent, num_positions, open_split, boom: bool = False, **options):
        if boom:
            raise SpecError("boom")
        if not isinstance(student, MixtureStudent) or isinstance(latent, int):
            raise SpecError("never told")
        try:
            num_positions + 1
        except Exception as error:
            raise SpecError("never told") from error
        if num_positions == 7 or not open_split or student.backbone.width > 1000 or len(teacher.backbone.accepts) < 0:
            raise SpecError("never told")
        super().__init__(teacher, student, latent=latent, **options)
"""


@pytest.mark.parametrize("changes", [{"process": "picky"}, {"objective__name": "curious"}, {"process": "picky", "objective__name": "curious"}])  # fmt: skip
def test_a_plugin_that_looks_at_what_is_not_there_yet_is_left_in_peace(tmp_path, changes):
    (tmp_path / "mine.py").write_text(PLUGIN)
    values = changed(DISTILL, **changes) | {"plugins": [str(tmp_path / "mine.py")]}
    spec = Spec.from_dict(values)
    check(spec, Registry.default(spec.plugins))
    build(spec, Registry.default(spec.plugins))
    if "objective__name" in changes:
        spec = Spec.from_dict(changed(values, objective__boom=True))
        with pytest.raises(SpecError, match="objective: boom"):
            check(spec, Registry.default(spec.plugins))


@pytest.mark.parametrize("look", [bool, len, int, lambda x: x.y, lambda x: x == 1, lambda x: x != x, lambda x: x < 1, lambda x: x >= 1, lambda x: x + 1, lambda x: x[0], lambda x: x(), lambda x: isinstance(x, Teacher), lambda x: isinstance(x, (int, Tensor))])  # fmt: skip
def test_of_what_is_absent_nothing_can_be_learnt(look):
    with pytest.raises(NotYet):
        look(Absent(known=3))


BACKBONE = {"name": "mdlm-dit", "width": 8, "depth": 1, "heads": 2, "conditioning_width": 4}


@pytest.mark.parametrize("teacher", ["denoiser", "mdlm"])
def test_a_network_that_takes_no_labels_is_not_refused_before_the_data_are_known(teacher):
    """Whether `num_classes` is None cannot be hidden from it."""
    entry = {"name": teacher, "backbone": BACKBONE} | (
        {"path": "teacher.pt"} if teacher == "mdlm" else {"parameterisation": "subs"}
    )
    values = changed(PRETRAIN, teacher=entry)
    check(Spec.from_dict(values), Registry.default())
    values["teacher"]["backbone"] = BACKBONE | {"heads": 3}
    with pytest.raises(SpecError, match="width 8 over 3 heads"):
        check(Spec.from_dict(values), Registry.default())


def test_a_module_can_keep_what_is_absent():
    module, absent = nn.Module(), Absent(known=3)
    module.kept = absent
    assert module.kept is absent and isinstance(absent, Absent) and absent.known == 3


def test_check_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    check(Spec.from_dict(changed(DISTILL, student={"head": {"name": "readout", "rank": 4}})), Registry.default())
    assert torch.equal(before, torch.get_rng_state())


def test_a_missing_key_is_still_told_by_its_name():
    with pytest.raises(RegistryError, match="misses 'time'"):
        check(Spec.from_dict(changed(PRETRAIN, objective={"name": "nelbo"})), Registry.default())
