"""The data and consistency terms with the control variate, as this project computes them and plainly, from the same draws."""

import torch
from torch import Tensor

from di4c.contracts import Draws, Prediction, categorical
from di4c.kernels.backend import chunk_budget
from di4c.mixture.reference import dense_control_variate, dense_log_probs, dense_logits, dense_sums
from di4c.mixture.sums import Query, statistics
from di4c.mixture.target import KEPT_CHUNKS, draw_target
from di4c_plugins.estimators.control_variate import ControlVariate

NEEDS = frozenset({"joint", "marginal", "kl"})


def project_terms(student: Prediction, target: Prediction, teacher: Prediction, x_0: Tensor, draws: Draws) -> Tensor:
    """Data term + consistency term: [B] nats."""
    drawn = draw_target(target, draws, keep_bytes=KEPT_CHUNKS * chunk_budget(x_0.device))
    queries = [Query(NEEDS, x_0[:, None], teacher), Query(NEEDS, drawn.samples, drawn.marginals)]
    found = statistics(student, queries)
    return sum(sum(ControlVariate()(each)) for each in found)


def plain_terms(student: Prediction, target: Prediction, teacher: Prediction, x_0: Tensor, draws: Draws) -> Tensor:
    """The same with every [B, M, D, S] there; tensors that are no longer needed are freed."""
    active = student.active()
    log_weights = torch.full((student.components,), 1 / student.components, device=x_0.device).log()
    with torch.no_grad():
        p = _log_probs(target).exp()
        x = categorical(p, draws.uniform(*p.shape[1:3]))
        q = p.mean(1)
        del p
        teacher_q = _log_probs(teacher).exp()[:, 0]
    log_p = _log_probs(student)
    data = dense_sums(log_p, active, log_weights, x_0[:, None], teacher_q, NEEDS)
    consistency = dense_sums(log_p, active, log_weights, x, q, NEEDS)
    return dense_control_variate(data, log_weights) + dense_control_variate(consistency, log_weights)


def _log_probs(prediction: Prediction) -> Tensor:
    readout = getattr(prediction.output_head, "linear", prediction.output_head)
    logits = dense_logits(prediction.features, readout.weight, readout.bias, prediction.components)
    return dense_log_probs(logits, prediction.x_t, prediction.parameterisation.mask_index)
