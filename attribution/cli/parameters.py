"""From ``-p window=48 --layer features.12`` to a technique."""

import json
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from attribution.cli import typed
from attribution.errors import AttributionError, InputError
from attribution.technique import Technique


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
            text = setting.partition("=")[2].strip().strip("'\"")[: typed.SHOWN]
            raise InputError(f"{kind.name} has no parameter 'score'; what is explained is told by --score {text}")
        name, value = typed.value_of(kind.name, known, setting)
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


def names(kind: type[Technique]) -> list[str]:
    """The parameters of a technique."""
    return [field.name for field in fields(kind) if field.init]


def layers_of(technique: Technique) -> tuple[str, ...]:
    """The layers that a technique was given by name."""
    values = {field.name: getattr(technique, field.name) for field in fields(technique)}
    single = values.get("layer")
    return tuple(values.get("layers") or ()) + ((single,) if isinstance(single, str) else ())


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
    name = next((name for name in typed.LAYER_FIELDS if name in known), None)
    if name is None:
        raise InputError(f"{kind.name} takes no layers; leave --layer out")
    if name == "layers":
        return name, list(layers)
    if len(layers) > 1:
        raise InputError(f"{kind.name} takes one layer; found {len(layers)}: {', '.join(layers)}")
    return name, layers[0]


def _check_complete(kind: type[Technique], known: dict[str, "Field[Any]"], values: dict[str, object]) -> None:
    missing = [
        "--layer NAME" if name in typed.LAYER_FIELDS else f"-p {name}=…"
        for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"{kind.name} needs {' and '.join(missing)}")
