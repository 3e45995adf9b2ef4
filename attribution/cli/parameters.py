"""From ``-p window=48 --layer features.12`` to a technique."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from attribution.errors import AttributionError, InputError, nearest
from attribution.technique import Technique

_LAYER_FIELDS = ("layer", "layers")
_SHOWN = 80


def technique(kind: type[Technique], settings: Sequence[str], layers: Sequence[str]) -> Technique:
    """A technique from what was typed.

    Args:
        kind: the technique's class.
        settings: ``NAME=VALUE``, the value in TOML.
        layers: for its field ``layers``, or ``layer``, which takes one.

    Raises:
        InputError: no such parameter, a parameter given twice or missing, or a value that is no TOML or of the
            wrong type or range.
    """
    known = {field.name: field for field in fields(kind) if field.init}
    values: dict[str, object] = {}
    for setting in settings:
        if kind.needs_target and "score" not in known and setting.partition("=")[0].strip() == "score":
            typed = setting.partition("=")[2].strip().strip("'\"")[:_SHOWN]
            raise InputError(f"{kind.name} has no parameter 'score'; what is explained is told by --score {typed}")
        name, value = _parsed(setting)
        if name not in known:
            raise InputError(f"{kind.name} has no parameter {name!r}{nearest(name, known)}; {_listed(known)}")
        if name in values:
            raise InputError(f"-p {name} is given twice; give it once")
        values[name] = _valid(kind, name, value, known[name])
    if layers:
        name, value = _layer_value(kind, known, layers)
        if name in values:
            raise InputError(f"layers are given by --layer and by -p {name}; take one of them away")
        values[name] = _valid(kind, name, value, known[name])
    _check_complete(kind, known, values)
    try:
        return kind(**values)
    except AttributionError:
        raise
    except Exception as error:  # the technique may be a plugin's
        raise InputError(f"{kind.name} refuses its parameters: {error}") from error


def shared_out(
    kinds: Mapping[str, type[Technique]], settings: Sequence[str], layers: Sequence[str]
) -> dict[str, tuple[list[str], Sequence[str]]]:
    """Settings and layers of each technique, as `technique` takes them.

    Args:
        kinds: the techniques' classes by name.
        settings: ``NAME=VALUE``, or ``TECHNIQUE.NAME=VALUE``, which is needed where several have such a parameter.
        layers: for all techniques that take layers.

    Raises:
        InputError: a setting may be of several techniques, or is of none.
    """
    known = {name: {field.name for field in fields(kind) if field.init} for name, kind in kinds.items()}
    takers = [name for name, own in known.items() if own & set(_LAYER_FIELDS)] or list(kinds)[:1]
    found: dict[str, tuple[list[str], Sequence[str]]] = {name: ([], layers if name in takers else ()) for name in kinds}
    for setting in settings:
        typed, equals, value = setting.partition("=")
        owner, dot, parameter = typed.strip().partition(".")
        if dot and owner in kinds:
            found[owner][0].append(f"{parameter}{equals}{value}")
            continue
        parameter = typed.strip()
        owners = [name for name, own in known.items() if parameter in own]
        if len(owners) > 1:
            raise InputError(
                f"-p {parameter} may be of {' or '.join(owners)}; say of which: -p {owners[0]}.{parameter}={value}"
            )
        if not owners and len(kinds) > 1 and equals and parameter != "score":
            names = {f"{name}.{each}" for name, own in known.items() for each in own}
            every = {*names, *(each for own in known.values() for each in own)}
            raise InputError(f"no technique asked for has a parameter {parameter!r}{nearest(parameter, every)}")
        found[(owners or list(kinds))[0]][0].append(setting)
    return found


def layers_of(technique: Technique) -> tuple[str, ...]:
    """The layers that a technique was given by name."""
    values = {field.name: getattr(technique, field.name) for field in fields(technique)}
    single = values.get("layer")
    return tuple(values.get("layers") or ()) + ((single,) if isinstance(single, str) else ())


def _parsed(setting: str) -> tuple[str, object]:
    name, equals, text = setting.partition("=")
    name = name.strip()
    if not equals or not name:
        raise InputError(f"-p {setting!r} is not NAME=VALUE; write it like -p window=48")
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        document = {}
    if set(document) != {"value"}:
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        quoted = json.dumps(text.strip(), ensure_ascii=False)
        raise InputError(
            f"-p {name}: {text.strip()!r} is not a TOML value such as 48, [24, 24] or true; "
            f"text needs quotes: -p '{name}={quoted}'"
        )
    return name, document["value"]


def _valid(kind: type[Technique], name: str, value: object, field: "Field[Any]") -> object:
    try:
        hint = get_type_hints(kind)[name]
        # JSON, because there a strict check takes lists for tuples and still tells true from 1.
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError:
        expected = str(getattr(hint, "__name__", hint) if isinstance(hint, type) else hint).replace("typing.", "")
        default = "" if field.default in (MISSING, None, ()) else f" such as {json.dumps(field.default)}"
        raise InputError(f"-p {name}={json.dumps(value, default=str)}: expected {expected}{default}") from None
    except (PydanticUserError, NameError) as error:
        raise InputError(f"{kind.name}: {name} cannot be given on the command line ({error})") from error


def _layer_value(kind: type[Technique], known: dict[str, "Field[Any]"], layers: Sequence[str]) -> tuple[str, object]:
    name = next((name for name in _LAYER_FIELDS if name in known), None)
    if name is None:
        raise InputError(f"{kind.name} takes no layers; leave --layer out")
    if name == "layers":
        return name, list(layers)
    if len(layers) > 1:
        raise InputError(f"{kind.name} takes one layer; found {len(layers)}: {', '.join(layers)}")
    return name, layers[0]


def _check_complete(kind: type[Technique], known: dict[str, "Field[Any]"], values: dict[str, object]) -> None:
    missing = [
        "--layer NAME" if name in _LAYER_FIELDS else f"-p {name}=…"
        for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"{kind.name} needs {' and '.join(missing)}")


def _listed(known: dict[str, "Field[Any]"]) -> str:
    return f"there are: {', '.join(known)}" if known else "it has none"
