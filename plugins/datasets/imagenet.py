"""ImageNet in its usual folders."""

from di4c.errors import DataError
from di4c_plugins.datasets.image_folder import ImageFolder


class ImageNet(ImageFolder):
    """`path`/train/n01440764/….JPEG and `path`/val/n01440764/….JPEG, cropped to the central square of side `size`.

    The labels are the class folders in alphabetical order, which is the usual numbering of the 1000 classes. classes:
    how many there must be (fewer for a subset, whose labels then count its own folders). The official archive of
    validation images has no class folders; they must be sorted into them first.
    """

    def __init__(
        self, *, path: str, size: int = 256, classes: int = 1000, conditional: bool = True, flips: bool = False
    ):
        super().__init__(path=path, size=size, channels=3, levels=256, conditional=conditional, flips=flips)
        if len(self._classes) != classes:
            raise DataError(
                f"data.path {path}: images of {len(self._classes)} classes, expected {classes} folders each in train "
                "and val; sort validation images of one folder into class folders; a subset needs data.classes"
            )
