"""Class names: from what a person writes to a class index."""

from collections.abc import Sequence

from attribution.errors import TargetError, nearest


def imagenet() -> tuple[str, ...]:
    """The 1000 class names that torchvision prints for ImageNet, each once."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def find(text: str, labels: Sequence[str] | None) -> int:
    """The index of the class that a text names.

    Args:
        text: an index in decimal digits, or a class name. Digits always mean an index. A name is compared
            as written first, then without regard to case; spaces around it do not matter.
        labels: the class names, or ``None`` when they are unknown; then only an index can be given, and
            its range is not checked.

    Raises:
        TargetError: no class has this name or index, or several have this name.
    """
    wanted = text.strip()
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 10:
        index = int(wanted)
        if labels is not None and index >= len(labels):
            raise TargetError(f"no class {index}; the model has classes 0 to {len(labels) - 1}")
        return index
    if wanted[:1] == "-" and wanted[1:].isdecimal() and wanted not in (labels or ()):
        last = "" if labels is None else f" to {len(labels) - 1}"
        raise TargetError(f"no class {wanted[:20]}; classes are counted from 0{last}")
    if labels is None:
        raise TargetError(f"no class {text!r}: this model's class names are unknown; give a class index")
    found = [index for index, label in enumerate(labels) if label == wanted]
    if len(found) != 1:
        found = [index for index, label in enumerate(labels) if label.casefold() == wanted.casefold()]
    if not found:
        hint = nearest(wanted.casefold(), [label.casefold() for label in labels])
        raise TargetError(f"no class {text!r}{hint}; give a class name or an index up to {len(labels) - 1}")
    if len(found) > 1:
        which = ", ".join(f"{index} ({labels[index]})" for index in found)
        raise TargetError(f"{text!r} names several classes: {which}; give the index")
    return found[0]
