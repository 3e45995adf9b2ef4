"""What Captum can be asked about a layer, settled before it is asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Run
from attribution.errors import AttributionError, LayerError, ModelError
from attribution.inputs.inputs import Inputs
from attribution.layers import LayerName, Stop
from attribution.running.execution import in_backward

_CUT = ("appears to not have been used", "does not require grad")


def places(model: nn.Module, names: Sequence[str], inputs: Inputs) -> list[tuple[LayerName, nn.Module]]:
    """Names and modules, for Captum's methods that know inputs and flat tuples, of which one item is taken.

    Raises:
        LayerError: A layer does not exist, or gives or takes what Captum has no form for: one of several runs, a dict,
            nested tuples, keyword arguments, or what is no tensor.
    """
    found = []
    for text in names:
        name, module = layers.find(model, text)
        if name.call is not None:
            raise LayerError(f"layer {text!r}: Captum takes no run ('#'); use backend='hooks'")
        found.append((name, module))
    for (name, _), stop in zip(found, ran(model, names, inputs), strict=True):
        if stop.form_of(name) is None and not (name.keys or name.entry):
            raise LayerError(
                f"layer {name.text!r} gives a {stop.output_type}, not a tensor; choose a layer that gives one, or one "
                f"item: '{name.text}[0]'"
            )
        value = stop.arguments if name.entry else stop.output
        flat = value if isinstance(value, list) else [*value.values()] if name.entry else [value]
        by_keyword = name.entry and not all(isinstance(key, int) for key in value)
        tensors = isinstance(value, list) or name.entry or not name.keys
        if by_keyword or not tensors or len(name.keys) > 1 or not all(isinstance(form, layers.Form) for form in flat):
            what = "is given" if name.entry else "gives"
            raise LayerError(
                f"layer {name.text!r} {what} no tensor or flat tuple of tensors{' by position' * name.entry}, and "
                "Captum takes nothing else; use backend='hooks'"
            )
        if stop.form_of(name) is None:
            raise layers.not_a_tensor(name, value if name.entry else tuple(flat))
    return found


def item(name: LayerName | None, value: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a name means of what Captum gives: a tensor, or a tuple where there were several."""
    if isinstance(value, Tensor):
        return value
    found: Tensor = layers.item(value, () if name is None else name.keys)
    return found


def ran(model: nn.Module, names: Sequence[str], inputs: Inputs) -> list[Stop]:
    """The modules as they ran.

    Raises:
        LayerError: A layer never ran, or ran several times.
        ModelError: The model fails on these inputs before a layer.
    """
    by_module = {stop.module: stop for stop in layers.survey(model, inputs)}
    found = []
    for text in names:
        name, module = layers.find(model, text)
        stop = by_module.get(module)
        if stop is None:
            raise layers.missing(model, inputs, layers.never_ran(text))
        if stop.calls > 1:
            raise layers.runs_often(name, stop.calls)
        found.append(stop)
    return found


def explained(run: Run[Any]) -> tuple[Tensor, ...]:
    """The tensors that Captum is given: what is explained. What else the model takes goes with `forward`."""
    return tuple(run.inputs.values[name] for name in run.inputs.explained)


def forward(run: Run[Any], *tensors: Tensor) -> Any:
    """Whatever the model returns for all examples with these tensors in place of the explained ones."""
    if len(tensors) == 1:
        return run.forward(tensors[0])
    return run.forward(run.inputs.replaced(dict(zip(run.inputs.explained, tensors, strict=True))))


class Truncated:
    """The model up to the last of some layers, as a function that Captum can run.

    Captum sets its hooks on the layers before it calls the model; those set during the call come after them.
    """

    def __init__(self, run: Run[Any], asked: Sequence[nn.Module]) -> None:
        self._run, self._asked = run, asked

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The first tensor itself: Captum keeps what the layers gave and looks at no output."""
        layers.outputs_until(self._asked, lambda: forward(self._run, *tensors))
        return tensors[0]


@contextmanager
def typed() -> Iterator[None]:
    """Captum's assertions as errors of this package; they never reach the user as they are."""
    try:
        yield
    except AttributionError:
        raise
    except (AssertionError, IndexError, TypeError, AttributeError) as error:
        if in_backward(error):
            raise  # of the model's own backward, or a hook on it
        raise ModelError(f"Captum cannot explain this model: {error}. Try backend='hooks'") from error


@contextmanager
def connected(otherwise: LayerError) -> Iterator[None]:
    """Torch's complaint about a gradient that does not exist, in our words."""
    try:
        yield
    except AttributionError:
        raise
    except RuntimeError as error:
        if any(text in str(error) for text in _CUT):
            raise otherwise from error
        raise
