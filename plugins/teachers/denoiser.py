"""A teacher made of a backbone and a parameterisation: what `task: pretrain` trains."""

from di4c.contracts import Backbone, ForwardProcess, Parameterisation, Teacher


class DenoiserTeacher(Teacher):
    """Any registered backbone under any parameterisation."""

    def __init__(
        self, process: ForwardProcess, num_positions: int, *, backbone: Backbone, parameterisation: Parameterisation
    ):
        self.process, self.num_positions = process, num_positions
        self.backbone, self.parameterisation = backbone, parameterisation

    def portable_entry(self, entry: dict) -> dict:
        """The entry without the weights that its backbone began from."""
        backbone = entry.get("backbone")
        if not isinstance(backbone, dict) or "pretrained" not in backbone:
            return entry
        return {**entry, "backbone": {key: value for key, value in backbone.items() if key != "pretrained"}}
