"""A plan as text."""

from di4c.planning.plan import Plan, Row

COLUMNS = {
    "weights": "weights", "gathered": "gathered", "gradients": "gradients", "optimizer": "optimizer", "average": "average",
    "teacher": "teacher", "activations": "activations", "loss_chunks": "loss", "update": "update", "host": "host",
}  # fmt: skip


def plan_text(plan: Plan) -> str:
    """A table of a rank's memory by stage, the FLOPs of a step, and a recommendation."""
    lines = [*_head(plan), "", *_table(plan), ""]
    chosen = plan.recommended
    if plan.gpu_memory is None:
        return "\n".join(lines[:-1])
    if chosen is None:
        lines.append("nothing fits: take more GPUs, student.lora, fewer components or a smaller micro-batch")
    else:
        offload = ", offload_optimizer: {device: cpu}" if chosen.engine.offload_optimizer else ""
        offload += ", offload_param: {device: cpu}" if chosen.engine.offload_param else ""
        lines.append(f"recommended: deepspeed: {{zero_optimization: {{stage: {chosen.engine.stage}{offload}}}}}")
        lines.append(f"there fit at most {_most(plan, chosen)}")
    return "\n".join(lines)


def _head(plan: Plan) -> list[str]:
    sizes, spec = plan.sizes, plan.spec
    parameters = f"{sizes.trained / 1e6:.1f} M trained parameters"
    if sizes.frozen:
        parameters += f", {sizes.frozen / 1e6:.1f} M frozen ones shared with the teacher"
    mixture = f", M = {plan.components}, N = {plan.targets}" if spec.task == "distill" else ""
    return [
        f"{spec.source}: {spec.task}, {parameters}, {spec.train.precision}",
        f"{plan.gpus} GPU{'s' * (plan.gpus > 1)}, micro-batch {plan.micro} × {plan.accumulation}{mixture}; "
        f"{plan.step_flops / 1e12:.3g} TFLOPs a step and GPU",
    ]


def _table(plan: Plan) -> list[str]:
    """GB of every entry, or MB where some peak is less than one; `peak` is the larger of computing and updating."""
    name, unit = ("GB", 1e9) if min(row.memory.peak for row in plan.rows) >= 1e9 else ("MB", 1e6)
    head = f"{f'{name} a GPU':<19}" + "".join(f"{title:>12}" for title in COLUMNS.values()) + f"{'peak':>9}"
    return [head + "  fits" * (plan.gpu_memory is not None)] + [_line(plan, row, unit) for row in plan.rows]


def _line(plan: Plan, row: Row, unit: float) -> str:
    items = vars(row.memory)
    values = "".join(f"{items[key] / unit:>12.2f}" for key in COLUMNS)
    fits = "" if plan.gpu_memory is None else "  yes" if row.fits else "  no"
    return f"{row.name:<19}{values}{row.memory.peak / unit:>9.2f}{fits}"


def _most(plan: Plan, row: Row) -> str:
    micro = f"micro-batch {row.largest_micro}"
    if plan.spec.task != "distill":
        return micro
    return f"M = {row.largest_components} with micro-batch {plan.micro}, or {micro} with M = {plan.components}"
