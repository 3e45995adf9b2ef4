"""Checks of the fields of `FilterVisualization`."""

from collections.abc import Mapping
from typing import Any, Literal

from attribution import numbers
from attribution.errors import InputError
from attribution.techniques.filter_visualization import objectives, starts
from attribution.techniques.parameters import axis, choice, flag, integer, layer_names, real

OWNER = "FilterVisualization"


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """All fields by name, in the form that they are kept in.

    Raises:
        InputError: One is out of range, or two contradict each other.
    """
    found = dict(given)
    (found["layer"],) = layer_names(OWNER, (given["layer"],))
    asked = found["objectives"] = objectives.checked(OWNER, given["objectives"])
    found["channels"] = channels(given["channels"], may_lack=bool(asked))
    found["neuron"] = neuron(given["neuron"])
    found["size"] = size(given["size"])
    if asked and found["channels"]:
        raise InputError(f"{OWNER} has channels and objectives; give ChannelsObjective(3) for a channel among them")
    if found["neuron"] is not None and any(each.reads_output for each in asked):
        raise InputError(f"{OWNER}.neuron is {given['neuron']!r}, but a function reads the whole output; leave it out")
    if given["penalty"] is not None and not callable(given["penalty"]):
        raise InputError(f"{OWNER}.penalty is {given['penalty']!r}; give a function of images (B, C, …) → (B,)")
    for name, choices in (("parametrization", ("fourier", "pixel")), ("optimizer", ("adam", "normalized"))):
        found[name] = choice(OWNER, name, given[name], choices)
    for name, least in (("steps", 1), ("seed", 0), ("jitter", 0)):
        found[name] = integer(OWNER, name, given[name], least=least)
    for name in ("step_size", "noise", "tv", "l2", "rotate"):
        found[name] = real(OWNER, name, given[name], zero=name != "step_size")
    found["scale"] = real(OWNER, "scale", given["scale"], zero=True, below=1.0)
    if given["decorrelate"] is not None:
        found["decorrelate"] = flag(OWNER, "decorrelate", given["decorrelate"])
    if given["in_channels"] is not None:
        found["in_channels"] = integer(OWNER, "in_channels", given["in_channels"], least=1)
    if given["spread"] is not None:
        found["spread"] = real(OWNER, "spread", given["spread"], zero=False)
    if given["initial"] is not None:
        found["initial"] = starts.own(given["initial"])
    if given["channel_axis"] is not None:
        found["channel_axis"] = axis(OWNER, given["channel_axis"])
    return found


def channels(given: object, *, may_lack: bool) -> tuple[int, ...]:
    """Channels, each once.

    Raises:
        InputError: Anything else, or none where ``may_lack`` is False.
    """
    several = numbers.items(given)
    if several is None or (not several and not may_lack):
        raise InputError(
            f"{OWNER}.channels is {given!r}; give at least one channel, channels=(0, 4), or objectives=(…)"
        )
    found = tuple(integer(OWNER, "channels", channel, least=0) for channel in several)
    if len(set(found)) < len(found):
        raise InputError(f"{OWNER}.channels names a channel twice: {found}")
    return found


def neuron(given: object) -> tuple[int, ...] | Literal["center"] | None:
    """One index per axis of places, ``"center"`` or ``None``.

    Raises:
        InputError: Anything else.
    """
    if given is None:
        return None
    if isinstance(given, str) and given == "center":
        return "center"
    several = numbers.items(given)
    if several is None or not 1 <= len(several) <= 3:
        raise InputError(f"{OWNER}.neuron is {given!r}; give (row, column), 'center' or None")
    return tuple(integer(OWNER, "neuron", index, least=0) for index in several)


def size(given: object) -> int | tuple[int, ...]:
    """One int for all axes of places, or one for each; two that are equal are one.

    Raises:
        InputError: Anything else.
    """
    several = numbers.items(given)
    if several is None:
        return integer(OWNER, "size", given, least=1)
    if len(several) > 3:
        raise InputError(f"{OWNER}.size is {given!r}; give one int, (height, width), or one for each axis of places")
    found = tuple(integer(OWNER, "size", side, least=1) for side in several)
    return found[0] if len(found) == 2 and found[0] == found[1] else found
