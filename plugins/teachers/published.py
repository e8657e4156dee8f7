"""Teachers whose weights a file holds, and what is the same for all of them."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from di4c.contracts import Backbone, ForwardProcess, Parameterisation, Teacher, strict_load
from di4c.errors import CheckpointError, SpecError
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.teachers.averaged import AveragedStudent
from di4c_plugins.teachers.containers import below, not_found

PROJECTION = "latent_projection."


class Found(NamedTuple):
    """What a checkpoint holds: the network's tensors, the configuration beside them ({} if none), and what messages call it."""

    state: Mapping[str, Tensor]
    config: Mapping
    source: str


class PublishedTeacher(Teacher):
    """A network with the weights of a file; sized by the file, unless the entry names it.

    A plugin names its backbone, what messages call the network, the keys of its entry that only say where weights are, and
    what messages give as the reason for a tensor too many or too few ({beginning of its name: reason}); its constructor reads
    a file and calls `set_up`.
    """

    backbone_name: str
    called: str
    backbone_class: type[Backbone]
    file_keys: tuple[str, ...] = ("path", "revision")
    reasons: Mapping[str, str] = {}
    sizes: dict | None = None

    def set_up(
        self,
        process: ForwardProcess,
        num_positions: int,
        parameterisation: Parameterisation,
        backbone: Backbone | None,
        found: Found | None,
        **fixed: int | None,
    ) -> None:
        """All attributes. found: None where no weights are to be read; fixed: options of the network that no file decides."""
        self.process, self.num_positions, self.parameterisation = process, num_positions, parameterisation
        if backbone is None:
            if found is None:
                raise SpecError("teacher: without weights to read, the entry must name its backbone")
            try:
                self.sizes = self.sizes_of(found)
            except (KeyError, IndexError) as error:
                told = not_found(str(error.args[0]), found.state)
                raise CheckpointError(f"{found.source}: not {self.called}'s network: {told}") from error
            backbone = self.backbone_class(num_positions, process.num_states, **fixed, **self.sizes)
        self.backbone = backbone
        self.load(found)

    def sizes_of(self, found: Found) -> dict:
        """The options of the network that fits the tensors; KeyError or IndexError where they are another network's."""
        raise NotImplementedError

    def renamed(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors under the names of the backbone."""
        return state

    def load(self, found: Found | None) -> None:
        """Puts the tensors into the network. Raises CheckpointError where they do not fit it."""
        if found is not None:
            strict_load(self.backbone, self.renamed(found.state), found.source, self.reasons)

    def portable_entry(self, entry: dict) -> dict:
        """The entry with the network's sizes instead of its file: an export carries the weights itself."""
        kept = {key: value for key, value in entry.items() if key not in self.file_keys}
        return kept if self.sizes is None else {**kept, "backbone": {"name": self.backbone_name, **self.sizes}}


class PublishedStudent(PublishedTeacher, AveragedStudent):
    """A published Di4C student of a transformer: λ comes in by a token, projected by `latent_projection.…` of the file."""

    def load(self, found: Found | None) -> None:
        self.head = SinusoidalToken(1, self.backbone)
        if found is None:
            return
        projection = below(found.state, PROJECTION)
        if not projection:
            raise CheckpointError(f"{found.source}: {self.reasons[PROJECTION]}")
        strict_load(self.head.projection, projection, found.source, self.reasons)
        network = {name: value for name, value in found.state.items() if not name.startswith(PROJECTION)}
        super().load(found._replace(state=network))


def required_path(path: str | None, expected: str) -> str:
    """The entry's `path`. Raises SpecError that says what is expected where it is missing."""
    if path is None:
        raise SpecError(f"teacher: `path` is missing: {expected}")
    return path
