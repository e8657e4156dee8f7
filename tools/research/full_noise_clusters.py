"""What K atoms can bind at t = 1 at least, and which heads can carry it: python tools/research/full_noise_clusters.py --spec SPEC --out FILE [--ranks 64,256]

A mixture of products is fitted to the data by EM, without a network: what it gains on the product of its marginals, on held-out data,
is what λ can bind at least. Then a new student of the spec is fitted to these products, at t = 1 and without noise: what is left of the
divergence says what its head can carry. SPEC: of a student with `latent: categorical` under a process with a mask.
"""

import argparse
import json
import time

import torch
from benchmarks.measure import commit

from di4c.command_line import numbers, path_argument, reporting
from di4c.config.build import build
from di4c.config.registry import Registry
from di4c.config.spec import read_spec
from di4c.contracts import Draws
from di4c.files import replace_file
from di4c.losses.clusters import Clusters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, help="of a student")
    parser.add_argument("--out", type=path_argument, required=True, help="the JSON file that is written")
    parser.add_argument("--ranks", type=numbers(1), default=[64, 256], help="of the readout head")
    parser.add_argument("--steps", type=int, default=200, help="of fitting the head")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key of the spec")
    options = parser.parse_args()
    with reporting():
        results = [fitted(options.spec, [*options.set, f"student.head.rank={r}"], options.steps) for r in options.ranks]
        told = {"commit": commit(), "spec": options.spec, "set": options.set, "ranks": results}
        replace_file(options.out, json.dumps(told, indent=1) + "\n")


def fitted(name: str, overrides: list[str], steps: int) -> dict:
    """EM's gain on the product of its marginals, in nats on held-out data, and the divergence of the student from its products, every tenth of the steps."""
    spec = read_spec(name, overrides)
    parts = build(spec, Registry.default(spec.plugins))
    process, student, atoms = parts.teacher.process, parts.student, parts.latent.num_atoms
    data, begin = parts.data, time.process_time()
    log_w = parts.latent.log_weights(atoms)
    clusters = Clusters.of(data.split("train"), log_w, process.num_states, Draws(0))
    product = Clusters((clusters.log_theta + log_w).logsumexp(-1, keepdim=True), torch.zeros(1))
    em_seconds, held_out = time.process_time() - begin, data.split("test")
    x = held_out.batch(Draws(1).permutation(len(held_out))[0, :10_000]).x_0
    gain = (clusters.log_joint(x).logsumexp(-1) - product.log_joint(x)[:, 0]).mean()
    log_theta = clusters.log_theta.permute(2, 0, 1)  # [K, D, S]
    optimizer = torch.optim.AdamW(
        [{"params": student.backbone.parameters(), "lr": 1e-3}, {"params": student.head.parameters(), "lr": 3e-3}],
        betas=(0.9, 0.99),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 30))
    x_1, t, lam = torch.full_like(x[:1], process.mask_index), torch.ones(1).double(), torch.eye(atoms)[None]
    curve = []
    for step in range(steps):
        log_p = student.predict(x_1, t, None, lam).log_probs(torch.arange(x.shape[1])).transpose(0, 1)
        log_p = log_p[..., : process.num_states].clamp_min(-30)
        divergence = ((log_theta.exp() * (log_theta - log_p)).sum((1, 2)) * log_w.exp()).sum()
        optimizer.zero_grad()
        divergence.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 50.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, steps // 10) == 0:
            curve.append({"step": step + 1, "divergence_nats": round(divergence.item(), 3)})
    told = {"overrides": overrides, "em_gain_nats": round(gain.item(), 3), "em_cpu_seconds": round(em_seconds, 1)}
    print(json.dumps(told | {"last": curve[-1]}), flush=True)
    return told | {"curve": curve}


if __name__ == "__main__":
    main()
