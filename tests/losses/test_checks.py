"""Numbers that make no sense, and terms that would never count, are refused with their key."""

import math

import pytest

from di4c.errors import SpecError
from di4c.losses.full_noise import FullNoiseTerm
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, Gate, MarginalTerm, TeacherStep
from di4c_plugins.estimators.jackknife import Jackknife
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.objectives.matching_options import Matching, Ramp
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.discrete import Discrete
from di4c_plugins.times.low_or_uniform import LowOrUniform
from di4c_plugins.times.samplers import LowDiscrepancyTime, SplitTime, TimeAboveStep, TimeGrid, UniformTime
from tests.systems import tiny_student, tiny_teacher

FLAT = Gate("constant", 1.0)
WEIGHTED = {
    "data.weight": lambda w: made(data=DataTerm(w, MonteCarlo(), FLAT)),
    "data.gate.scale": lambda w: made(data=DataTerm(1.0, MonteCarlo(), Gate("sigmoid", w))),
    "consistency.weight": lambda w: made(consistency=ConsistencyTerm(w, MonteCarlo())),
    "consistency.min_time": lambda w: made(consistency=ConsistencyTerm(1.0, MonteCarlo(), min_time=w)),
    "distillation.weight": lambda w: made(distillation=DistillationTerm(w)),
    "distillation.max_time": lambda w: made(distillation=DistillationTerm(1.0, max_time=w, max_time_inclusive=True)),
    "marginal.weight": lambda w: made(marginal=MarginalTerm(w)),
    "full_noise.weight": lambda w: FullNoiseTerm(w),
    "matching.weight": lambda w: Matching(x_s="bridge", weight=w),
    "ramps, first": lambda w: Ramp(w, 1.0, 10),
    "ramps, last": lambda w: Ramp(1.0, w, 10),
}


@pytest.mark.parametrize("key", WEIGHTED)
@pytest.mark.parametrize("value", [-1.0, -1e-9, math.nan, math.inf])
def test_weights_are_finite_and_not_negative(key, value):
    WEIGHTED[key](0.0)
    with pytest.raises(SpecError, match=rf"^objective\.{key}: at least 0 and finite; found {value}"):
        WEIGHTED[key](value)


def made(**changes):
    """An objective with all terms of Di4C, with changes."""
    teacher = tiny_teacher()
    latent = changes.pop("latent", Categorical(atoms=4))
    settings = {
        "sampler": Ancestral(teacher.process), "components": 4, "targets": 1, "time": UniformTime(),
        "teacher_step": TeacherStep("constant", size=0.25), "data": DataTerm(1.0, MonteCarlo(), FLAT),
        "consistency": ConsistencyTerm(1.0, MonteCarlo()), "distillation": DistillationTerm(1.0),
    }  # fmt: skip
    return Di4C(teacher, tiny_student(teacher, "readout", latent.dim), latent=latent, **settings | changes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("distillation_copies", 0), ("distillation_copies", -1), ("chunk_bytes", 0), ("chunk_bytes", -5), ("targets", -1),
        ("components_at_a_time", 0), ("components", 0), ("label_dropout", 3.0), ("label_dropout", -0.1), ("label_dropout", math.nan),
       
    ],
)  # fmt: skip
def test_numbers_are_refused_by_their_key(key, value):
    with pytest.raises(SpecError, match=rf"^objective\.{key}: .*found {value}"):
        made(**{key: value}, **({"consistency": None} if key == "targets" else {}))


TIMES = [
    TimeGrid([0.25, 0.5]), UniformTime(0.25, 0.5), LowDiscrepancyTime(0.25, 0.5), SplitTime(low=0.25, high=0.5, split=0.3, probability=0.5),
    LowOrUniform(low=0.25, high=0.5, probability=0.5), Discrete(8, UniformTime(0.15, 0.49)),
]  # fmt: skip


@pytest.mark.parametrize("term", ["data", "consistency"])
def test_an_estimator_with_too_few_components_is_refused(term):
    terms = {"data": DataTerm(1.0, Jackknife(), FLAT), "consistency": ConsistencyTerm(1.0, Jackknife())}
    told = {term: terms[term], "latent": Uniform()}
    with pytest.raises(
        SpecError, match=rf"^objective\.{term}\.estimator: Jackknife needs objective\.components ≥ 2; found 1"
    ):
        made(components=1, **told)
    made(components=2, **told)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "step", [TeacherStep("constant", size=0.3), TeacherStep("log-uniform", smallest=0.01, largest=0.3)]
)
def test_a_teacher_step_longer_than_the_interval_of_times_is_refused(step, wrapped):
    """t would be drawn above 1, or above the interval."""
    time = lambda high: Discrete(8, TimeAboveStep(0.2, high)) if wrapped else TimeAboveStep(0.2, high)
    with pytest.raises(SpecError, match=r"^objective\.time .* steps of 0\.2; objective\.teacher_step has some of 0\.3"):
        made(time=time(0.4), teacher_step=step)
    made(time=time(0.5), teacher_step=step)  # just as long: every t is high
    made(time=UniformTime(0.2, 0.4), teacher_step=step)


@pytest.mark.parametrize("time", TIMES, ids=lambda time: type(time).__name__)
def test_a_term_whose_region_no_time_meets_is_refused(time):
    assert time.span == (0.25, 0.5)
    made(
        time=time,
        distillation=DistillationTerm(1.0, max_time=0.26),
        consistency=ConsistencyTerm(1.0, MonteCarlo(), 0.5),
    )
    made(time=time, distillation=DistillationTerm(1.0, max_time=0.25, max_time_inclusive=True))
    made(time=time, distillation=DistillationTerm(1.0, max_time=0.1), distillation_time=UniformTime(0.01, 0.02))
    with pytest.raises(SpecError, match=r"distillation.max_time 0.25 leaves none .* at least 0.25"):
        made(time=time, distillation=DistillationTerm(1.0, max_time=0.25))
    with pytest.raises(SpecError, match=r"consistency.min_time 0.6 is above all times .* at most 0.5"):
        made(time=time, consistency=ConsistencyTerm(1.0, MonteCarlo(), min_time=0.6))


def test_components_of_full_noise_are_told_by_their_own_key():
    with pytest.raises(SpecError, match=r"^objective\.full_noise\.components: at least 1, or 'all'; found 0"):
        made(full_noise=FullNoiseTerm(1.0, components=0))
    with pytest.raises(SpecError, match=r"^objective\.full_noise\.components: 'all' needs a λ sampler"):
        made(latent=Uniform(), full_noise=FullNoiseTerm(1.0))
