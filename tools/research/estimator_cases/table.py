"""What the choices of estimators do, as a table: of tools/results/estimators.json."""

from page_tables import markdown_table


def estimators(stored: dict) -> str:
    """What a choice does to bias and spread: a row a comparison, the cell before → after; the verdict in words."""
    lines = []
    for name, part, before, change, verdict in ESTIMATORS:
        after = {key: value for key, value in (before | change).items() if value is not None}
        old, new = (next(r for r in stored[part]["rows"] if want.items() <= r.items()) for want in (before, after))
        case = f"{'enumerated, D = ' + str(old['D']) if part == 'enumerated' else 'digits, t = ' + format(old['t'], 'g')}, M = {old['M']}"
        cells = [
            f"{_short(old[k])} → {_short(new[k])}" if k in old and k in new else ""
            for k in ("bias_nats", "gradient_bias", "gradient_sd")
        ]
        told = {"components": new["M"], "time_ratio": new.get("cpu_seconds", 0.0) / old.get("cpu_seconds", 1.0)}
        lines.append([name.format(**told), case, *cells, verdict.format(**told)])
    head = ["", "case", "bias of the loss, nats", "bias of the gradient", "spread of the gradient", ""]
    text = (
        "Gradients in units of the noise that the examples of the batch alone cause (16 digits, or 32 x of the enumerated mixture). "
        "Stored in [tools/results/estimators.json](tools/results/estimators.json), measured by tools/research/measure_estimators.py."
    )
    return f"{markdown_table(head, lines)}\n\n{text}\n"


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


DIGITS = {"law": "uniform", "t": 1.0, "M": 16, "estimator": "monte-carlo", "latent": "uniform"}
GRID = {"D": 64, "M": 16, "estimator": "monte-carlo", "latent": "uniform"}
TARGETS = {"M": 16, "estimator": "monte-carlo"}
ESTIMATORS = [
    ("`sobol` λ for independent", "gradient", DIGITS, {"latent": "sobol"}, "use it"),
    ("`sobol` λ for independent", "enumerated", GRID, {"latent": "sobol"}, "components smooth in λ"),
    ("`stratified` λ", "gradient", DIGITS, {"latent": "stratified"}, "kept"),
    ("`categorical` spread over K = 32 atoms", "enumerated", GRID | {"latent": "categorical, independent"},
     {"latent": "categorical, spread"}, "now the default"),
    ("`own-component`", "targets", TARGETS | {"M": 4}, {"estimator": "own-component"}, "for small M"),
    ("`own-component`", "targets", TARGETS, {"estimator": "own-component"}, "little left to gain"),
    ("`own-component`", "enumerated", GRID, {"estimator": "own-component"}, "components far apart"),
    ("`control-variate`", "targets", TARGETS, {"estimator": "control-variate"}, "more with x_u: each"),
    ("its best coefficient for 1", "targets", TARGETS | {"estimator": "control-variate"},
     {"estimator": "control-variate, best coefficient"}, "dropped: nothing to learn by leave-one-out"),
    ("`x_u: each` for shared", "targets", TARGETS, {"estimator": "monte-carlo, x_u each"},
     "{time_ratio:.1f} times the time with a head behind the trunk"),
    ("`jackknife`", "gradient", DIGITS, {"estimator": "jackknife"}, "for batches of hundreds"),
    ("antithetic λ", "gradient", DIGITS, {"latent": "antithetic"}, "dropped"),
    ("telescoping (M = {components} on average)", "enumerated", GRID | {"D": 16}, {"M": None, "estimator": "telescoping"},
     "dropped: unbiased, too noisy"),
]  # fmt: skip
"""(choice, part of the file, the row before, what is another in the row after, None for whatever it is there, verdict); {components} and
{time_ratio} are filled in from the rows."""
