"""Checks of data sets, tokenizers and metrics."""

import copy

import torch

from di4c.contracts import DataSource, Draws, ForwardProcess, Generation, ImageTokenizer, Metric
from di4c.testing.expected import require


def check_dataset(data: DataSource, process: ForwardProcess | None = None, *, examples: int = 256) -> None:
    """Both splits: shapes, dtypes, ranges; the same indices give the same examples, alone or together; no mask state of `process`.

    `examples` of each split, evenly spread, are looked at. num_states counts the data's states, without a mask.
    """
    for name in ("train", "test"):
        split = data.split(name)
        require(len(split) > 0, f"{name}: holds no example")
        indices = (torch.arange(min(examples, len(split))) * (len(split) / min(examples, len(split)))).long()
        batch, again = split.batch(indices), split.batch(indices)
        x_0, last = batch.x_0, split.batch(indices[-1:])
        require(x_0.shape == (len(indices), data.num_positions), f"{name}: x_0 must be [B, D]")
        require(x_0.dtype == torch.int64, f"{name}: tokens must be int64")
        require(x_0.min() >= 0 and x_0.max() < data.num_states, f"{name}: tokens leave 0 … num_states − 1")
        if process is not None and process.mask_index is not None:
            require((x_0 != process.mask_index).all(), f"{name}: holds state {process.mask_index}, the process's mask")
        same = torch.equal(x_0, again.x_0) and torch.equal(x_0[-1:], last.x_0)
        require(same, f"{name}: without draws the same indices must give the same examples")
        if data.num_classes is None:
            continue
        cond = batch.cond
        labelled = cond is not None and cond.shape == (len(indices),) and cond.dtype == torch.int64
        require(labelled, f"{name}: labels must be [B] int64")
        require(cond.min() >= 0 and cond.max() < data.num_classes, f"{name}: labels leave num_classes")
    require(data.fingerprint() == data.fingerprint(), "the fingerprint must be the same for the same data")


def check_tokenizer(tokenizer: ImageTokenizer) -> None:
    """Codes [B, D] in their range, each image's by itself; images of the shape they came in; a fingerprint of the weights."""
    images = 2 * Draws(0, count=3).uniform(*tokenizer.image_shape).float() - 1
    with torch.no_grad():
        codes = tokenizer.encode(images)
        decoded = tokenizer.decode(codes)
        alone = tokenizer.encode(images[1:2])
    require(codes.shape == (3, tokenizer.num_positions) and codes.dtype == torch.int64, "codes must be [B, D] int64")
    require(codes.min() >= 0 and codes.max() < tokenizer.num_codes, "codes must lie in 0 … num_codes − 1")
    require(decoded.shape == images.shape and decoded.isfinite().all(), "decode must give images of the encoded shape")
    require(torch.equal(alone, codes[1:2]), "an image's codes depend on the others in its batch")
    before = tokenizer.fingerprint()
    changed = copy.deepcopy(tokenizer)
    with torch.no_grad():
        next(changed.parameters()).add_(1.0)
    require(
        tokenizer.fingerprint() == before != changed.fingerprint(),
        "the fingerprint must follow the weights, and them alone",
    )


def check_metric(metric: Metric, generation: Generation) -> None:
    """Named finite numbers, the same for the same generation; `guards` that it has."""
    values = metric(generation)
    require(values and all(isinstance(v, float) for v in values.values()), "a metric returns {name: float}")
    require(
        all(v == v and abs(v) != float("inf") for v in values.values()), "a metric returned a number that is not finite"
    )
    require(
        metric(generation) == values,
        "a metric must say the same of the same generation: it draws from generation.draws alone",
    )
    missing = metric.guards - values.keys()
    require(not missing, f"`guards` names {', '.join(sorted(missing))}, which it does not report")
