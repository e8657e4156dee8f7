"""Losses and gradients of Di4C under ZeRO-3: python -m tests.losses.zero3_worker JOBS.json RESULTS.json, one process a rank.

A job: {"head", "backbone", "chunk_bytes"} and optionally "components_at_a_time", "proposal" (a λ sampler whose posterior proposes λ), "atoms" (an
enumerated λ, half of the times 1). Its result on rank 0: {"losses": [B] of the whole batch, "gradients": {name: norm},
"calls": of the output head a step}.
"""

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

from di4c.contracts import Batch, Draws
from di4c.losses.objective import Di4C
from di4c.losses.proposal import ProposalOptions
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, Gate, TeacherStep
from di4c.mixture.student import MixtureStudent
from di4c_plugins.backbones.maskgit import MaskGITBackbone
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.product_categorical import ProductCategorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.posteriors.transformer import Transformer
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.samplers import TimeGrid, UniformTime
from tests.engine.launching import work
from tests.systems import HEADS, tiny_teacher

SIZE = 4
LATENTS = {
    None: Uniform,
    "gaussian": lambda: Gaussian(dim=2),
    "product-categorical": lambda: ProductCategorical(factors=2, values=3),
}
CONFIG = {
    "train_batch_size": SIZE,
    "train_micro_batch_size_per_gpu": SIZE // 2,
    "gradient_accumulation_steps": 1,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "zero_allow_untested_optimizer": True,
}


def objective_of(job: dict) -> Di4C:
    """A small Di4C with every term, the same on every rank."""
    teacher = tiny_teacher(num_classes=None)
    torch.manual_seed(1)
    if job["backbone"] == "maskgit":
        teacher.backbone = MaskGITBackbone(6, 6, width=8, depth=2, heads=2, mlp_width=8, dropout=0.0)
        for parameter in teacher.backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        teacher.freeze()
    latent = Categorical(atoms=job["atoms"]) if "atoms" in job else LATENTS[job.get("proposal")]()
    backbone = teacher.student_backbone()
    student = MixtureStudent(
        backbone, HEADS[job["head"]](latent.dim, backbone), parameterisation=teacher.parameterisation, num_states=6
    )
    proposed = job.get("proposal") is not None
    estimator = MonteCarlo() if proposed else ControlVariate()
    posterior = Transformer(latent, teacher.process, 6, width=8, depth=1, heads=2) if proposed else None
    return Di4C(
        teacher,
        student,
        latent=latent,
        sampler=Ancestral(teacher.process),
        components=3,
        targets=2,
        time=TimeGrid(points=[0.25, 1.0]) if "atoms" in job else UniformTime(),
        teacher_step=TeacherStep("constant", size=0.1, substeps=2),
        chunk_bytes=job["chunk_bytes"],
        components_at_a_time=job.get("components_at_a_time"),
        proposal=ProposalOptions(posterior) if proposed else None,
        data=DataTerm(1.0, estimator, Gate("constant", 1.0)),
        consistency=ConsistencyTerm(1.0, estimator, min_time=0.1),
        distillation=None if proposed else DistillationTerm(2.0, max_time=0.3),
    )


def batch_of(first: int, count: int) -> tuple[Batch, Draws]:
    """Examples first, … of the whole batch; how many of their positions are masked differs between examples."""
    whole = Draws(9, count=SIZE).integers(5, 6)
    return Batch(whole[first : first + count]), Draws(0, first=first, count=count)


def perform(job: dict) -> dict:
    objective = objective_of(job)
    calls = []
    # Called positionally with h by the losses; the hook counts the calls that gather the weight.
    objective.model.backbone.readout.register_forward_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.0)
    engine, *_ = deepspeed.initialize(model=objective, optimizer=optimizer, config=CONFIG)
    share = SIZE // dist.get_world_size()
    for _ in range(2):  # the second step follows the order that ZeRO-3 recorded in the first
        calls.clear()
        batch, draws = batch_of(dist.get_rank() * share, share)
        loss = engine(batch, draws, 0)["loss"]
        engine.backward(loss.mean())
        gradients = {
            name: safe_get_full_grad(p).norm().item() for name, p in objective.named_parameters() if p.requires_grad
        }
        engine.step()
    parts = [torch.empty(share) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, loss.detach().float())
    return {"losses": torch.cat(parts).tolist(), "gradients": gradients, "calls": len(calls)}


if __name__ == "__main__":
    work(perform)
