"""Reference numbers of Di4C's losses as the three published systems weigh them, through the one loss written here."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from di4c.contracts import LossEstimator, Prediction
from di4c.losses.inputs import LossInputs
from di4c.losses.loss import Di4CLoss
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, Gate, TeacherStep
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.teachers.containers import below
from di4c_plugins.times.samplers import TimeAboveStep
from golden_cases.checks import Check, Kind

AGAINST = {"out": (torch.float32, 1e-5), "aux64": (torch.float64, 1e-10)}
"""Prefix of the reference tensors → dtype of the computation and its relative tolerance."""
CANCELLING = 0.1
"""Terms are differences of log-likelihoods, and 0 up to their rounding with one component: errors are taken relative to a
tenth of the log-likelihood at least."""
EXACT_IN_SIZE = ("time_coeff", "r_weight", "grad")
ESTIMATORS: dict[str, type[LossEstimator]] = {"cv": ControlVariate, "nocv": MonteCarlo}
SCHEDULES = {"sigmoid": "sigmoid", "linear": "linear", "const": "constant"}


@dataclass(frozen=True)
class System:
    """How one published system weighs the terms.

    t [B] float64; gate: a(t) of the main numbers; gates: other schedules by the reference's names; distillation, min_time:
    the terms' regions; distil_counts, consis_counts: True or bool [B], where the reference computes the unweighted terms at all;
    weighted: its names of the weighted terms; subs: SUBS with the case's mask, where its logits are SUBS outputs.
    """

    t: Tensor
    gate: Gate
    gates: dict[str, Gate]
    distillation: DistillationTerm
    min_time: float
    distil_counts: Tensor | bool = True
    consis_counts: Tensor | bool = True
    weighted: tuple[str, str] = ("distil", "consis")
    subs: Subs | None = None


def losses_sdtt(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """Text: distillation where t < δ, else consistency; nothing is weighted."""
    t, delta = tensors["in.t"].double(), _float32(config["distil_delta"])
    early, term = t < delta, DistillationTerm(1.0, delta)
    subs = Subs(Mdlm(config["S"] - 1, mask_index=config["mask_index"])) if "in.xt" in tensors else None
    return checks(System(t, *_gates(config), term, delta, early, ~early, subs=subs), tensors)


def losses_maskgit(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """VQ images: (1/δ)·distillation where r ≥ 1 − δ, else consistency; r = 1 − t, compared in float32 as published."""
    t, delta = 1 - tensors["in.r"].double(), config["r_delta"]
    max_time = 1 - _float32(1 - delta)
    term = DistillationTerm(1 / delta, max_time, max_time_inclusive=True)
    weighted = ("distil_weighted", "consis_weighted")
    return checks(System(t, *_gates(config), term, math.nextafter(max_time, 1), weighted=weighted), tensors)


def losses_tauldr(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """Pixels: both terms at all times, distillation on inputs of its own near 0."""
    step_law = TeacherStep("log-uniform", smallest=config["min_distil_time"], largest=config["max_distil_time"])
    step = step_law.draw(given_uniforms(tensors["in.rand_delta"].double()))
    t, _ = TimeAboveStep(low=config["min_time"]).sample(given_uniforms(tensors["in.rand_t"].double()), step)
    gates = {
        "sched_sigmoid": Gate("sigmoid", 1.0),
        "sched_None": Gate("constant", 1.0),
        "sched_zero": Gate("constant", 0.0),
        "sched_linear": Gate("linear", 1.0),
    }
    system = System(t, gates[f"sched_{config['alpha_t_main']}"], gates, DistillationTerm(1.0), 0.0)
    times = {"t": t, "u": step_law.earlier(t, step)}
    found = checks(system, tensors)
    for prefix, (_, tolerance) in AGAINST.items():
        for name in [n for n in tensors if n.startswith(prefix) and n.split(".")[-1] in times]:
            found.append(Check(name, times[name.split(".")[-1]], tensors[name], max(tolerance, 1e-6)))
    return found


def checks(system: System, tensors: dict[str, Tensor]) -> list[Check]:
    """Every number of the case, in float32 against the reference's and in float64 against its float64 form."""
    found = []
    likelihood = float(computed(system, tensors, torch.float64, MonteCarlo())["data_cor"].abs().max())
    for prefix, (dtype, tolerance) in AGAINST.items():
        for variant, estimator in ESTIMATORS.items():
            numbers = computed(system, tensors, dtype, estimator())
            for name, want in below(tensors, f"{prefix}.{variant}.").items():
                if name in numbers:
                    floor = 0.0 if name.startswith(EXACT_IN_SIZE) else CANCELLING * likelihood
                    found.append(Check(f"{prefix}.{variant}.{name}", numbers[name], want, tolerance, floor=floor))
    return found


def computed(
    system: System, tensors: dict[str, Tensor], dtype: torch.dtype, estimator: LossEstimator
) -> dict[str, Tensor]:
    """The case's numbers under the reference's names."""
    inputs, leaves = inputs_of(system, tensors, dtype)
    loss = weighed(system, system.gate, estimator)
    parts = loss(inputs)
    total = parts["loss"].mean()
    gradients = torch.autograd.grad(total, leaves)
    raw = Di4CLoss(consistency=ConsistencyTerm(1.0, estimator, -1.0), distillation=DistillationTerm(1.0, 2.0))(inputs)
    distil, consis = system.weighted
    distil_counts, consis_counts = map(torch.as_tensor, (system.distil_counts, system.consis_counts))
    numbers = {
        "data_cor": parts["data_correlated"],
        "data_indep": parts["data_marginal"],
        "data": parts["data"],
        "distil": raw["distillation"].where(distil_counts, 0.0),
        "consis_cor": raw["consistency_correlated"].where(consis_counts, 0.0),
        "consis_indep": raw["consistency_marginal"].where(consis_counts, 0.0),
        "consis": parts["consistency"],
        "time_coeff": system.gate(system.t),
        "r_weight": (system.t <= system.distillation.max_time).to(dtype),
        "per_example": parts["loss"],
        "total": total,
        "grad": gradients[0],
    }
    numbers |= {distil: parts["distillation"], consis: parts["consistency"]}
    if len(gradients) > 1:
        numbers["grad_mint"] = gradients[1]
    for name, gate in system.gates.items():
        numbers[f"total.{name}"] = weighed(system, gate, estimator)(inputs)["loss"].mean()
        numbers[f"time_coeff.{name}"] = gate(system.t)
    return {name: value.detach() for name, value in numbers.items()}


def weighed(system: System, gate: Gate, estimator: LossEstimator) -> Di4CLoss:
    """The system's loss with a schedule a(t)."""
    return Di4CLoss(
        data=DataTerm(1.0, estimator, gate),
        consistency=ConsistencyTerm(1.0, estimator, system.min_time),
        distillation=system.distillation,
    )


def inputs_of(system: System, tensors: dict[str, Tensor], dtype: torch.dtype) -> tuple[LossInputs, list[Tensor]]:
    """The given logits as what the losses look at, and the leaves that gradients are taken of."""
    given = {name: v.to(dtype) if v.is_floating_point() else v for name, v in below(tensors, "in.").items()}
    x_t, subs = given.get("xt", given["x0"]), system.subs
    leaves = [given["student_logits_t"].requires_grad_()]
    inputs = {
        "t": system.t,
        "x_0": given["x0"],
        "student": predicted(leaves[0], x_t, subs),
        "teacher": predicted(given["teacher_logits_t"], x_t, subs),
        # Every component has an x_u of its own here, so its log-probabilities are taken as they are.
        "target": predicted(given["student_logits_u"], x_t, None),
        "target_samples": given["x0_samples"],
        "distils": True,
    }
    if "student_logits_mint" in given:
        leaves.append(given["student_logits_mint"].requires_grad_())
        copies = given["x0"].repeat_interleave(leaves[1].shape[1], dim=0)
        inputs["distilled_student"] = predicted(leaves[1].flatten(0, 1), copies, None)
        inputs["distilled_teacher"] = predicted(given["teacher_logits_mint"].flatten(0, 1), copies, None)
    return LossInputs(**inputs), leaves


def predicted(logits: Tensor, x_t: Tensor, subs: Subs | None) -> Prediction:
    """A Prediction from logits [B, D, S] or [B, M, D, S], its log-weights in the dtype of the logits."""
    prediction = Prediction.from_logits(logits, x_t, subs)
    log_weights = torch.full((prediction.components,), -math.log(prediction.components), dtype=logits.dtype)
    return replace(prediction, log_weights=log_weights)


def given_uniforms(values: Tensor) -> SimpleNamespace:
    """Uniform numbers [B] in place of draws."""
    return SimpleNamespace(device="cpu", uniform=lambda *shape: values)


def _gates(config: dict) -> tuple[Gate, dict[str, Gate]]:
    """The schedule of the main numbers, and all by the reference's names."""
    gates = {f"alpha_{name}": Gate(shape, config["alpha_const"]) for name, shape in SCHEDULES.items()}
    return gates[f"alpha_{config['alpha_t_main']}"], gates


def _float32(value: float) -> float:
    """The threshold as the reference compares with it."""
    return float(torch.tensor(value, dtype=torch.float32))


KINDS = [
    Kind("losses_sdtt", frozenset({"in.t", "out.cv.consis"}), losses_sdtt),
    Kind("losses_maskgit", frozenset({"in.r", "out.cv.consis_weighted"}), losses_maskgit),
    Kind("losses_tauldr", frozenset({"in.rand_delta", "out.cv.grad_mint"}), losses_tauldr),
]
