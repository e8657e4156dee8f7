"""Whether distribution matching is well: the student's samples against the teacher's, and the critic that learns them."""

from collections.abc import Mapping

import torch

from di4c.contracts import Draws, Prediction
from di4c.mixture.target import draw
from di4c_plugins.metrics.entropy import position_entropy

LEAST_ENTROPY = 0.8
"""Below this share of the teacher's sample entropy the student is on its way to few samples."""
LEAST_CRITIC = 0.25
"""A critic that finds the student's samples so much likelier than the teacher does has few to learn."""

COLLAPSE = (
    "the student is collapsing to few samples: {told}. Lower train.optimizer.lr, give the critic a higher rate or more updates "
    "(lr_multipliers {{critic: …}}, objective.critic.updates), or a heavier data term (objective.data.weight); begin again from a "
    "checkpoint of before, this one will not come back"
)
ASLEEP = (
    "λ says almost nothing of x_0, and matching does not wake it: let the student start from one that Di4C has trained "
    "(student.start: {run: …}), and keep the data term beside the matching (objective.data)"
)


@torch.no_grad()
def sample_entropies(student: Prediction, teacher: Prediction, draws: Draws) -> dict[str, float]:
    """Entropy of the tokens at a position among one-step samples, mean over positions, nats; as many samples of each.

    Few samples have too low an entropy, both alike.
    """
    entropies = [
        position_entropy(draw(prediction, draws.child(name))[:, 0], prediction.num_states)
        for name, prediction in (("student", student), ("teacher", teacher))
    ]
    return dict(zip(("sample_entropy_nats", "teacher_sample_entropy_nats"), entropies, strict=True))


def matching_warnings(found: Mapping[str, float]) -> dict[str, str]:
    """{name: warning}, as Objective.warnings."""
    told = []
    own, teachers = found.get("sample_entropy_nats"), found.get("teacher_sample_entropy_nats")
    if own is not None and own < LEAST_ENTROPY * teachers:
        told.append(f"the entropy of its one-step samples is {own:.2f} nats a position, the teacher's {teachers:.2f}")
    critic, bound = found.get("critic_nats"), found.get("teacher_nats")
    if critic is not None and critic < LEAST_CRITIC * bound:
        told.append(f"its samples cost {critic:.2f} nats by the critic, {bound:.2f} by the teacher")
    warnings = {"matching-collapse": COLLAPSE.format(told=", and ".join(told))} if told else {}
    if found.get("mixture_collapsed", 0) > 0:
        warnings["mixture-collapsed"] = ASLEEP
    return warnings
