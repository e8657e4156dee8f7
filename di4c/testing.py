"""The contracts as checks that plugin authors run: each raises AssertionError that says what does not hold.

    from di4c.testing import check_teacher
    check_teacher(MyTeacher(...))

All run in seconds on a CPU. Random checks use tolerances of five standard errors.
"""

import copy

import torch
from torch import Tensor

from di4c.contracts import (
    Backbone,
    Batch,
    DataSource,
    Denoiser,
    Draws,
    ForwardProcess,
    Generation,
    ImageTokenizer,
    LambdaSampler,
    LossEstimator,
    Metric,
    Objective,
    Prediction,
    Sampler,
    StudentHead,
    Teacher,
    TimeLaw,
)
from di4c.engine.dropout import insert_example_dropout
from di4c.mixture.every_sample import every_sample
from di4c.mixture.student import MixtureStudent
from di4c.mixture.sums import Query, statistics
from di4c.mixture.target import draw_target
from di4c.dry_run import check_pipeline

__all__ = [
    "check_backbone", "check_dataset", "check_estimator", "check_head", "check_latent", "check_metric",
    "check_objective", "check_pipeline", "check_process", "check_sampler", "check_teacher", "check_time_law",
    "check_tokenizer",
]  # fmt: skip


def _require(condition: bool | Tensor, message: str) -> None:
    if not bool(condition):
        raise AssertionError(message)


def _times(count: int, t: float) -> Tensor:
    return torch.full((count,), t, dtype=torch.float64)


def _data_tokens(process: ForwardProcess, draws: Draws, positions: int) -> Tensor:
    """Any states but the mask, wherever among them it is: [B, D]."""
    if process.mask_index is None:
        return draws.integers(process.num_states, positions)
    x_0 = draws.integers(process.num_states - 1, positions)
    return x_0 + (x_0 >= process.mask_index)


def check_process(process: ForwardProcess, *, positions: int = 4, seed: int = 0) -> None:
    """t = 0 gives the data; draws do not depend on ranks; the posterior's draws follow its own log-probabilities."""
    draws = Draws(seed, count=64)
    x_0 = _data_tokens(process, draws.child("x_0"), positions)
    _require(
        torch.equal(process.corrupt(x_0, _times(64, 0.0), draws.child("none")), x_0), "corrupt at t = 0 must give x_0"
    )
    x_t = process.corrupt(x_0, _times(64, 0.6), draws.child("x_t"))
    _require(x_t.shape == x_0.shape and x_t.dtype == torch.int64, "corrupt must return int64 of x_0's shape")
    _require(0 <= x_t.min() and x_t.max() < process.num_states, "corrupt left the states 0 … num_states − 1")
    part = process.corrupt(x_0[10:], _times(54, 0.6), Draws(seed, first=10, count=54).child("x_t"))
    _require(torch.equal(part, x_t[10:]), "corrupt must draw from `draws` alone, row by row, so that ranks agree")
    prior = process.prior(positions, draws.child("prior"))
    _require(prior.shape == (64, positions) and prior.dtype == torch.int64, "prior must be [B, D] int64")
    _check_posterior(process, x_t[:1], x_0[:1], seed)
    if process.mask_index is not None:
        other = Prediction.point(_data_tokens(process, draws.child("other"), positions), x_t, process.num_states)
        x_s = process.posterior(x_t, other, _times(64, 0.6), _times(64, 0.3), draws.child("x_s"))
        _require(((x_s == x_t) | (x_t == process.mask_index)).all(), "posterior changed a state that was no mask")


def _check_posterior(process: ForwardProcess, x_t: Tensor, x_0: Tensor, seed: int, number: int = 4000) -> None:
    """The mean log-probability of drawn x_s equals minus the entropy estimated from their frequencies, position 0."""
    many_t, many_0 = x_t.expand(number, -1), x_0.expand(number, -1)
    prediction = Prediction.point(many_0, many_t, process.num_states)
    t, s = _times(number, 0.6), _times(number, 0.3)
    x_s = process.posterior(many_t, prediction, t, s, Draws(seed, count=number))
    outcomes, counts = x_s.unique(dim=0, return_counts=True)
    again = [x.expand(len(outcomes), -1) for x in (x_t, x_0)]
    log_p = process.posterior_log_prob(
        outcomes,
        again[0],
        Prediction.point(again[1], again[0], process.num_states),
        t[: len(outcomes)],
        s[: len(outcomes)],
    )
    _require(log_p.shape == (len(outcomes), 1), "posterior_log_prob must be [B, M]")
    p = log_p[:, 0].double().exp()
    error = 5 * (p * (1 - p) / number).sqrt() + 5 / number
    _require(p.sum() < 1 + 1e-4, "posterior_log_prob sums to more than 1")
    _require(((counts / number - p).abs() <= error).all(), "posterior draws do not follow posterior_log_prob")


def check_backbone(backbone: Backbone, *, num_positions: int, num_states: int, num_classes: int | None = None) -> None:
    """Shapes of features and readout; chunks of rows read out as the whole does; an `affine` readout is; dropout is by modules."""
    x_t, t, cond = _inputs(num_positions, num_states, num_classes)
    h = backbone(x_t, t, cond)
    _require(h.shape == (3, num_positions, backbone.width), f"features must be [B, D, width]; found {tuple(h.shape)}")
    rows = torch.arange(x_t.numel())
    _check_dropout(copy.deepcopy(backbone).train(), x_t, t, cond)
    flat = h.flatten(0, 1)[:, None]
    logits = backbone.readout(flat, rows % num_positions, x_t.flatten())
    _require(logits.shape == (len(rows), 1, num_states), f"readout must give [P, M, S]; found {tuple(logits.shape)}")
    some = rows[1::3]
    chunk = backbone.readout(flat[some], some % num_positions, x_t.flatten()[some])
    _require(torch.allclose(chunk, logits[some], atol=1e-4), "a chunk of rows must read out as the whole does")
    if getattr(backbone.readout, "affine", False):
        again = backbone.readout(
            flat, reduction=lambda h, w, b: (affine_logits(h, w, b, rows % num_positions, num_states),)
        )[0]
        _require(torch.allclose(again, logits, atol=1e-4), "readout says `affine` but does not compute h·Wᵀ + b")


def _check_dropout(backbone: Backbone, x_t: Tensor, t: Tensor, cond: Tensor | None) -> None:
    """In training, where masks belong to examples, features do not depend on how the batch is split."""
    examples = insert_example_dropout(backbone)

    def features(first: int, end: int) -> Tensor:
        examples.first, examples.count = first, end - first
        torch.manual_seed(0)
        return backbone(x_t[first:end], t[first:end], None if cond is None else cond[first:end])

    with torch.random.fork_rng(), torch.no_grad():
        whole, parts = features(0, len(x_t)), [features(0, 1), features(1, len(x_t))]
    message = "in training the features depend on how the batch is split: dropout must be by nn.Dropout modules, on tensors [B·n, …]"
    _require(torch.allclose(torch.cat(parts), whole, atol=1e-4), message)


def affine_logits(h: Tensor, weight: Tensor, bias: Tensor | None, positions: Tensor, num_states: int) -> Tensor:
    """h·Wᵀ + b in the words of the Reduction contract: [P, M, S] from h [P, M, H] at positions [P]."""
    logits = h @ weight[:num_states].T
    if bias is None:
        return logits
    return logits + (bias[:num_states] if bias.dim() == 1 else bias[positions, None, :num_states])


def _inputs(num_positions: int, num_states: int, num_classes: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
    draws = Draws(0, count=3)
    cond = draws.integers(num_classes) if num_classes else None
    return draws.integers(num_states, num_positions), draws.uniform(), cond


def check_teacher(teacher: Teacher, *, num_classes: int | None = None) -> None:
    """Its process and backbone hold their contracts; predictions normalise, carry no gradient and do not change; students
    start from it without sharing its weights, and work in bfloat16."""
    check_process(teacher.process, positions=teacher.num_positions)
    teacher.freeze()
    draws = Draws(0, count=3)
    cond = draws.integers(num_classes) if num_classes else None
    x_0 = _data_tokens(teacher.process, draws, teacher.num_positions)
    x_t = teacher.process.corrupt(x_0, _times(3, 0.7), draws)
    prediction = teacher.predict(x_t, _times(3, 0.7), cond)
    rows = torch.arange(x_t.numel())
    log_p = prediction.log_probs(rows)
    _require(
        log_p.shape == (len(rows), 1, teacher.process.num_states),
        f"predictions must read out as [P, 1, S]; found {tuple(log_p.shape)}",
    )
    _require(
        log_p.isfinite().all(), "log-probabilities must be finite; use di4c.contracts.LOG_ZERO for impossible states"
    )
    _require((log_p.exp().sum(-1) - 1).abs().max() < 1e-4, "probabilities do not sum to 1 over the states")
    _require(not log_p.requires_grad, "a teacher's prediction must carry no gradient")
    again = teacher.predict(x_t, _times(3, 0.7), cond).log_probs(rows)
    _require(torch.equal(log_p, again), "two predictions at the same x_t differ: no randomness inside a forward")
    student = teacher.student_backbone()
    _require(all(p.requires_grad for p in student.parameters()), "student_backbone must be trainable")
    shared = {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.backbone.parameters()}
    _require(not shared, "student_backbone shares weights with the teacher; copy them")
    _check_in_bfloat16(student.eval(), teacher, x_t, cond)


@torch.no_grad()
def _check_in_bfloat16(backbone: Backbone, teacher: Teacher, x_t: Tensor, cond: Tensor | None) -> None:
    """A student's backbone, its parameters cast as `train.precision: bf16` casts them, gives normalised log-probabilities near those in float32."""
    rows = torch.arange(x_t.numel())

    def probs() -> Tensor:
        h = backbone(x_t, _times(len(x_t), 0.7), cond)
        prediction = Prediction(h, x_t, backbone.readout, teacher.parameterisation, teacher.process.num_states)
        return prediction.log_probs(rows).double().exp()

    expected = probs()
    for parameter in backbone.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    try:
        found = probs()
    except RuntimeError as error:
        raise AssertionError(f"a backbone whose weights are bfloat16 must take float64 times: {error}") from error
    normalised = found.isfinite().all() and ((found.sum(-1) - 1).abs() < 1e-3).all()
    _require(normalised, "in bfloat16 probabilities are not finite, or do not sum to 1")
    distance = (found - expected).abs().sum(-1).mean() / 2
    _require(
        distance < 0.1,
        f"in bfloat16 predictions differ by {distance:.2f} in total variation: keep tables and times in float32",
    )


def check_head(head: StudentHead, backbone: Backbone, *, latent_dim: int, teacher: Teacher) -> None:
    """The backbone accepts what the head needs; components differ from the start and do not depend on their neighbours."""
    _require(
        head.needs <= backbone.accepts,
        f"the head needs {set(head.needs)}, the backbone accepts {set(backbone.accepts)}",
    )
    student = MixtureStudent(
        backbone, head, parameterisation=teacher.parameterisation, num_states=teacher.process.num_states
    )
    x_t = teacher.process.prior(teacher.num_positions, Draws(0, count=2))
    lam = Draws(1, count=2).uniform(4, latent_dim).float()
    rows = torch.arange(x_t.numel())
    with torch.no_grad():
        whole = student.predict(x_t, _times(2, 1.0), None, lam).log_probs(rows)
        alone = student.predict(x_t, _times(2, 1.0), None, lam[:, 2:3]).log_probs(rows)
    _require(whole.shape == (len(rows), 4, teacher.process.num_states), "a student must read out as [P, M, S]")
    _require(torch.allclose(whole[:, 2:3], alone, atol=1e-4), "a component depends on the other components' λ")
    _require(whole.exp().std(dim=1).max() > 1e-6, "all components start equal: a saddle of the mixture loss")


def check_latent(latent: LambdaSampler, *, components: int = 6) -> None:
    """Shapes and dtype; rank independence; draws uncorrelated if they are said to be independent; weights that sum to 1; atoms whose
    weights sum to 1."""
    lam = latent.sample(components, Draws(0, count=5))
    _require(
        lam.shape == (5, components, latent.dim) and lam.dtype == torch.float32, "sample must be [B, M, L] float32"
    )
    part = latent.sample(components, Draws(0, first=2, count=3))
    _require(torch.equal(lam[2:], part), "sample must draw from `draws` alone, row by row, so that ranks agree")
    if latent.independent and latent.num_atoms != 2:
        _require(_correlation(latent) < 0.08, "`independent` is True, but the draws of an example are correlated")
    weights = latent.log_weights(components).exp()
    _require(
        weights.shape == (components,) and (weights.sum() - 1).abs() < 1e-6, "log_weights must be [M] and sum to 1"
    )
    for number in (1, 3):
        atoms, weights = latent.support(number, Draws(0))
        _require(atoms.shape == (len(weights), latent.dim), "support must give atoms [K, L] and weights [K]")
        _require((weights.sum() - 1).abs() < 1e-5, "support's weights must sum to 1")


def _correlation(latent: LambdaSampler, examples: int = 4000) -> float:
    """Largest correlation, over the L dimensions, of two draws of λ for one example; its standard error is 1/√examples."""
    lam = latent.sample(2, Draws(0, count=examples)).double()
    lam = (lam - lam.mean(0)) / lam.std(0).clamp_min(1e-12)
    return float(lam.prod(1).mean(0).abs().max())


def check_estimator(estimator: LossEstimator) -> None:
    """Shapes; finite values and gradients; a constant added to all logits changes nothing; where all components are equal the
    estimate is the product's −log p(x), its KL where it uses the target's marginals, or 0 where it sums over every x."""
    logits = Draws(0, count=2).normal(3, 4, 5).requires_grad_()
    correlated, marginal = _estimate(estimator, logits)[:2]
    _require(correlated.shape == marginal.shape == (2,), "an estimator returns (correlated [B], marginal [B])")
    (gradient,) = torch.autograd.grad((correlated + marginal).sum(), logits)
    _require(gradient.isfinite().all(), "the gradient is not finite")
    _require(gradient.sum(-1).abs().max() < 1e-8, "the loss must not change when a constant is added to all logits")
    equal = logits.detach()[:, :1].expand(-1, 3, -1, -1)
    correlated, marginal, log_p, kl = _estimate(estimator, equal)
    expected = kl if "kl" in estimator.needs else -log_p
    message = (
        'with equal components correlated + marginal must be −log p(x) of the product, or its KL where `needs` has "kl"'
    )
    if "log_law" in estimator.needs:  # the target is the product itself
        expected, message = (
            torch.zeros_like(log_p),
            "summed over every x the loss of a student equal to its target must be 0",
        )
    _require(torch.allclose(correlated + marginal, expected, atol=1e-6), message)


def _estimate(estimator: LossEstimator, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(correlated, marginal, mean log p(x) of component 1, KL of the marginals) on drawn samples of the mixture itself: [B] each."""
    x_t = torch.zeros(2, 4, dtype=torch.long)
    itself = Prediction.from_logits(logits.detach(), x_t)
    drawn = draw_target(itself, Draws(1, count=2), keep_bytes=0, score=True)
    needs = estimator.needs | {"joint", "kl"}
    query = Query(needs, drawn.samples, itself, target_joint=drawn.joint)
    if "log_law" in estimator.needs:
        samples, log_law = every_sample(itself)
        query = Query(needs, samples, itself, log_law=log_law)
    found = statistics(Prediction.from_logits(logits, x_t), [query])[0]
    return *estimator(found), found.joint[..., 0].mean(-1), found.kl


def check_sampler(sampler: Sampler, teacher: Teacher, *, steps: int = 3, num_classes: int | None = None) -> None:
    """The grid runs from 1 down; samples in 1 to 2·D steps are data states; the same draws give the same tokens. Under a process
    with a mask visible tokens stay and no mask is left, whatever probability a network gives the mask."""
    process, positions = teacher.process, teacher.num_positions
    denoisers = (
        [teacher.predict] if process.mask_index is None else [teacher.predict, _fond_of_masks(process, positions)]
    )
    x_1 = process.prior(positions, Draws(0, count=4))
    cond = Draws(2, count=4).integers(num_classes) if num_classes else None
    for number in sorted({1, 2, steps, 2 * positions}):
        times = sampler.times(number)
        falling = all(a > b for a, b in zip(times[:-1], times[1:], strict=True))
        _require(
            times[0] == 1.0 and falling and len(times) == number + 1,
            f"times({number}) must fall from 1, in {number} steps",
        )
        for denoiser in denoisers:
            _check_samples(sampler, denoiser, x_1, number, cond)
    if process.mask_index is not None:
        x_0 = sampler.step(denoisers[-1], x_1, _times(4, 1.0), _times(4, 0.0), cond, Draws(1, count=4))
        _require((x_0 != process.mask_index).all(), "a step to s = 0 left masks")


def _check_samples(sampler: Sampler, denoiser: Denoiser, x_1: Tensor, steps: int, cond: Tensor | None) -> None:
    process, draws = sampler.process, Draws(1, count=len(x_1))
    first, second = (sampler.sample(denoiser, x_1.clone(), steps, cond, draws.child("sample")) for _ in range(2))
    told = f"in {steps} steps"
    _require(torch.equal(first, second), f"the same draws must give the same tokens, {told}")
    _require(first.shape == x_1.shape and first.dtype == torch.int64, "samples must be [B, D] int64")
    _require(
        0 <= first.min() and first.max() < process.num_states, f"samples left the states 0 … num_states − 1, {told}"
    )
    if process.mask_index is None:
        return
    _require((first != process.mask_index).all(), f"samples still hold masks, {told}")
    visible = draws.child("visible").uniform(x_1.shape[1]) < torch.linspace(0, 1, len(x_1))[:, None]
    prompted = torch.where(visible, _data_tokens(process, draws.child("prompt"), x_1.shape[1]), x_1)
    x_0 = sampler.sample(denoiser, prompted.clone(), steps, cond, draws.child("sample"))
    _require(torch.equal(x_0[visible], prompted[visible]), f"visible tokens of x_1, a prompt, must stay, {told}")
    _require((x_0 != process.mask_index).all(), f"samples with a prompt still hold masks, {told}")


def _fond_of_masks(process: ForwardProcess, positions: int) -> Denoiser:
    """A network that reads visible positions anew and gives most probability to the mask, as a `raw` one may."""
    logits = Draws(3, path=("logits",)).normal(positions, process.num_states)[0].float()
    logits[:, process.mask_index] += 6.0
    return lambda x_t, t, cond: Prediction.from_logits(logits.expand(len(x_t), -1, -1), x_t)


def check_dataset(data: DataSource, process: ForwardProcess | None = None, *, examples: int = 256) -> None:
    """Both splits: shapes, dtypes, ranges; the same indices give the same examples, alone or together; no mask state of `process`.

    `examples` of each split, evenly spread, are looked at. num_states counts the data's states, without a mask.
    """
    for name in ("train", "test"):
        split = data.split(name)
        _require(len(split) > 0, f"{name}: holds no example")
        indices = (torch.arange(min(examples, len(split))) * (len(split) / min(examples, len(split)))).long()
        batch, again = split.batch(indices), split.batch(indices)
        x_0, last = batch.x_0, split.batch(indices[-1:])
        _require(x_0.shape == (len(indices), data.num_positions), f"{name}: x_0 must be [B, D]")
        _require(x_0.dtype == torch.int64, f"{name}: tokens must be int64")
        _require(0 <= x_0.min() and x_0.max() < data.num_states, f"{name}: tokens leave 0 … num_states − 1")
        if process is not None and process.mask_index is not None:
            _require((x_0 != process.mask_index).all(), f"{name}: holds state {process.mask_index}, the process's mask")
        same = torch.equal(x_0, again.x_0) and torch.equal(x_0[-1:], last.x_0)
        _require(same, f"{name}: without draws the same indices must give the same examples")
        if data.num_classes is None:
            continue
        cond = batch.cond
        labelled = cond is not None and cond.shape == (len(indices),) and cond.dtype == torch.int64
        _require(labelled, f"{name}: labels must be [B] int64")
        _require(0 <= cond.min() and cond.max() < data.num_classes, f"{name}: labels leave num_classes")
    _require(data.fingerprint() == data.fingerprint(), "the fingerprint must be the same for the same data")


def check_tokenizer(tokenizer: ImageTokenizer) -> None:
    """Codes [B, D] in their range, each image's by itself; images of the shape they came in; a fingerprint of the weights."""
    images = 2 * Draws(0, count=3).uniform(*tokenizer.image_shape).float() - 1
    with torch.no_grad():
        codes = tokenizer.encode(images)
        decoded = tokenizer.decode(codes)
        alone = tokenizer.encode(images[1:2])
    _require(codes.shape == (3, tokenizer.num_positions) and codes.dtype == torch.int64, "codes must be [B, D] int64")
    _require(0 <= codes.min() and codes.max() < tokenizer.num_codes, "codes must lie in 0 … num_codes − 1")
    _require(decoded.shape == images.shape and decoded.isfinite().all(), "decode must give images of the encoded shape")
    _require(torch.equal(alone, codes[1:2]), "an image's codes depend on the others in its batch")
    before = tokenizer.fingerprint()
    changed = copy.deepcopy(tokenizer)
    with torch.no_grad():
        next(changed.parameters()).add_(1.0)
    _require(
        tokenizer.fingerprint() == before != changed.fingerprint(),
        "the fingerprint must follow the weights, and them alone",
    )


def check_metric(metric: Metric, generation: Generation) -> None:
    """Named finite numbers, the same for the same generation."""
    values = metric(generation)
    _require(values and all(isinstance(v, float) for v in values.values()), "a metric returns {name: float}")
    _require(
        all(v == v and abs(v) != float("inf") for v in values.values()), "a metric returned a number that is not finite"
    )


def check_objective(objective: Objective, data: DataSource, *, seed: int = 0) -> None:
    """A loss [B] with gradients for the model only, the same for any split of the batch over ranks."""
    batch = data.split("train").batch(torch.arange(4))
    whole = objective(batch, Draws(seed, count=4), 0)
    _require(whole["loss"].shape == (4,) and whole["loss"].isfinite().all(), '"loss" must be [B] and finite')
    half = Batch(batch.x_0[2:], None if batch.cond is None else batch.cond[2:])
    part = objective(half, Draws(seed, first=2, count=2), 0)
    _require(torch.allclose(part["loss"], whole["loss"][2:], rtol=1e-3), "the loss depends on how the batch is split")
    whole["loss"].mean().backward()
    _require(any(p.grad is not None for p in objective.model.parameters()), "no gradient reaches objective.model")


def check_time_law(law: TimeLaw) -> None:
    """t [B] float64 in [0, 1], inside an interval that all ranks agree on; an example's t does not depend on how the batch is split."""
    for seed in range(8):
        t, (low, high) = law.sample(Draws(seed, count=64), 0.01)
        _require(t.shape == (64,) and t.dtype == torch.float64, "t must be [B] float64")
        _require(0 <= low <= t.min() and t.max() <= high <= 1, "t must lie in the interval, and that in [0, 1]")
        part, interval = law.sample(Draws(seed, first=32, count=32), 0.01)
        _require(torch.equal(part, t[32:]), "t depends on how the batch is split")
        _require(interval == (low, high), "the interval depends on the share of the batch")
