"""What ``-p`` says, before any technique is imported."""

import json
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from attribution.errors import InputError, nearest
from attribution.paths import named

LAYER_FIELDS = ("layer", "layers")
SHOWN = 80
_WORD = re.compile(r"[A-Za-z_][\w.\-]*")


def shared_out(
    known: Mapping[str, Collection[str]], settings: Sequence[str], layers: Sequence[str]
) -> dict[str, tuple[list[str], Sequence[str]]]:
    """Settings and layers of each technique.

    Args:
        known: the parameters of each technique.
        settings: ``NAME=VALUE``, or ``TECHNIQUE.NAME=VALUE``, which is needed where several have such a parameter.
        layers: for all techniques that take layers.

    Raises:
        InputError: a setting may be of several techniques, or is of none.
    """
    takers = [name for name, own in known.items() if {*own} & {*LAYER_FIELDS}] or list(known)[:1]
    found: dict[str, tuple[list[str], Sequence[str]]] = {name: ([], layers if name in takers else ()) for name in known}
    for setting in settings:
        typed, equals, value = setting.partition("=")
        owner, dot, parameter = typed.strip().partition(".")
        if dot and owner in known:
            found[owner][0].append(f"{parameter}{equals}{value}")
            continue
        parameter = typed.strip()
        owners = [name for name, own in known.items() if parameter in own]
        if len(owners) > 1:
            raise InputError(
                f"-p {parameter} may be of {' or '.join(owners)}; say of which: -p {owners[0]}.{parameter}={value}"
            )
        if not owners and len(known) > 1 and equals and parameter != "score":
            names = {f"{name}.{each}" for name, own in known.items() for each in own}
            every = {*names, *(each for own in known.values() for each in own)}
            raise InputError(f"no technique asked for has a parameter {parameter!r}{nearest(parameter, every)}")
        found[(owners or list(known))[0]][0].append(setting)
    return found


def no_parameters(images: Sequence[Path], known: Sequence[Collection[str]]) -> None:
    """Refuse a parameter among the images.

    Args:
        images: as typed.
        known: the parameters of each technique.

    Raises:
        InputError: ``stride=16`` is no file, and a technique has such a parameter.
    """
    for image in images:
        name, equals, _ = str(image).partition("=")
        if equals and any(name.rpartition(".")[2] in own for own in known) and not os.path.exists(image):
            raise InputError(f"{named(image)} is no image but a parameter; each takes its own -p: -p {named(image)}")


def value_of(technique: str, known: Collection[str], setting: str) -> tuple[str, object]:
    """Name and value of a setting.

    Raises:
        InputError: it is not ``NAME=VALUE``, the value is no TOML, or the technique has no such parameter.
    """
    name, value = _parsed(setting)
    if name not in known:
        listed = f"there are: {', '.join(known)}" if known else "it has none"
        raise InputError(f"{technique} has no parameter {name!r}{nearest(name, known)}; {listed}")
    return name, value


def _parsed(setting: str) -> tuple[str, object]:
    name, equals, text = setting.partition("=")
    name = name.strip()
    if not equals or not name:
        raise InputError(f"-p {setting!r} is not NAME=VALUE; write it like -p window=48")
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        document = {}
    if not document and _WORD.fullmatch(text.strip()):
        document = {"value": text.strip()}  # a word needs no quotes, which a shell would take away
    if set(document) != {"value"}:
        text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        quoted = json.dumps(text.strip(), ensure_ascii=False)
        raise InputError(
            f"-p {name}: {text.strip()!r} is not a TOML value such as 48, [24, 24] or true; "
            f"text needs quotes: -p '{name}={quoted}'"
        )
    return name, document["value"]
