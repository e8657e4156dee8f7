"""A teacher made of a backbone and a parameterisation: what `task: pretrain` trains."""

from di4c.contracts import Backbone, ForwardProcess, Parameterisation, Teacher


class DenoiserTeacher(Teacher):
    """Any registered backbone under any parameterisation."""

    def __init__(
        self, process: ForwardProcess, num_positions: int, *, backbone: Backbone, parameterisation: Parameterisation
    ):
        self.process, self.num_positions = process, num_positions
        self.backbone, self.parameterisation = backbone, parameterisation
