"""Which transforms may be called by several threads at once."""

from typing import Any

_SHAPES = {"Resize", "CenterCrop", "Pad"}
_VALUES = {"ToTensor", "PILToTensor", "ToImage", "ToDtype", "ConvertImageDtype", "Normalize", "Grayscale", "RGB"}
_STATELESS = {"Compose", "ImageClassification"} | _SHAPES | _VALUES


def stateless(transform: Any) -> bool:
    """Whether a transform is made of torchvision's that keep and draw nothing. Of a stranger's that is unknown."""
    kind = type(transform)
    if kind.__module__.partition(".")[0] != "torchvision" or kind.__name__ not in _STATELESS:
        return False
    return all(stateless(each) for each in getattr(transform, "transforms", ()))
