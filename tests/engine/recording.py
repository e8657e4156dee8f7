"""A stand-in for the recorder of CUDA graphs that needs no GPU."""

from dataclasses import dataclass, field

from di4c.engine import graphs


@dataclass
class Recorder:
    """Runs what it has recorded, into the tensors of the recording, as a graph does."""

    kind: str = "cpu"
    recorded: int = 0
    replayed: int = 0
    free: bool = True
    error: Exception | None = None
    outputs: list = field(default_factory=list)

    def takes(self, device):
        return self.free and device.type == self.kind

    def record(self, function, device):
        if self.error is not None:
            raise self.error
        assert device.type == "cpu"
        self.recorded += 1
        static = function()
        self.outputs.append(static)

        def replay():
            self.replayed += 1
            for mine, new in zip(graphs._tensors(static), graphs._tensors(function()), strict=True):
                mine.copy_(new)
            return static

        return replay

    @property
    def counts(self):
        return self.recorded, self.replayed
