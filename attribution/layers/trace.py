"""What each layer of a model puts out, seen in one forward."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attribution.errors import AttributionError, ModelError
from attribution.inputs.inputs import Inputs, as_inputs
from attribution.isolation.notes import notes
from attribution.isolation.restore import run_itself
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.undo import Undo
from attribution.layer_name import LayerName
from attribution.layers.items import arguments, item
from attribution.layers.names import find
from attribution.running.execution import running
from attribution.running.nested import tensors


@dataclass(frozen=True)
class Form:
    """What is kept of a tensor: its shape."""

    shape: tuple[int, ...]


@dataclass(eq=False)
class Stop:
    """One module that ran.

    Attributes:
        name: As ``named_modules()`` prints it.
        module: The module.
        calls: How often it ran.
        order: Position by the end of its last run; a container comes after its children.
        shape: Of its last output; ``None`` where that is not a tensor.
        input_shape: Of the first tensor that its last run was given; ``None`` where it was given none.
        output_type: ``"Tensor"``, ``"tuple"``, …
        bytes: Size of its last output.
        output: The form of its last output: a `Form` in place of every tensor, ``None`` of what is neither that nor a
            container.
        arguments: Likewise what its last run was given, by position or keyword.
    """

    name: str
    module: nn.Module
    calls: int
    order: int
    shape: tuple[int, ...] | None
    input_shape: tuple[int, ...] | None
    output_type: str
    bytes: int
    output: Any = None
    arguments: Mapping[str | int, Any] = field(default_factory=dict)

    def form_of(self, name: LayerName) -> tuple[int, ...] | None:
        """The shape of what a name means, on one example; ``None`` where that is no tensor."""
        keys = name.keys
        if name.entry and not keys:
            keys = tuple([key for key, form in self.arguments.items() if isinstance(form, Form)])
            keys = keys if len(keys) == 1 else ()
        found = item(self.arguments if name.entry else self.output, keys)
        return found.shape if isinstance(found, Form) else None

    @property
    def leaf(self) -> bool:
        """Whether the module has no children."""
        return next(self.module.children(), None) is None

    @property
    def parametrised(self) -> bool:
        """Whether the module, or one inside it, has parameters."""
        return next(self.module.parameters(), None) is not None


class Survey(tuple[Stop, ...]):
    """Every module that ran on one image, by the order in which they ended.

    Attributes:
        outputs: Shapes of the tensors that the model returned.
        failure: Why the model failed, in which case the modules that ended before it did are here; else ``None``.
        chosen: The layers that a technique takes by default, by its name.
        tokens: How those of Grad-CAM's layer lie, where it gives tokens.
        sides: Of a shape, whether modules that give or take it compute on its first or its last axis.
        once: Of layers by name, what `run_once` says.
    """

    outputs: tuple[tuple[int, ...], ...] = ()
    failure: str | None = None
    chosen: dict[str, tuple[str, ...]]
    tokens: str | tuple[int, ...] | None = None

    def __init__(self, stops: Iterable[Stop]) -> None:
        self.chosen = {}
        self.once: dict[tuple[str, ...], bool] = {}
        self.sides: dict[tuple[int, ...], set[Literal["first", "last"] | None]] = {}


@contextmanager
def record(model: nn.Module) -> Iterator[dict[str, Stop]]:
    """Note every module that runs inside the block, in this thread: name → `Stop`. Nothing is kept alive."""
    stops: dict[str, Stop] = {}
    owner, armed = threading.get_ident(), True
    ended = 0

    def note(name: str, module: nn.Module, args: Sequence[Any], options: Mapping[str, Any], output: Any) -> None:
        nonlocal ended
        if not armed or threading.get_ident() != owner:
            return
        known, first = stops.get(name), next(tensors((args, options)), None)
        stops[name] = Stop(
            name=name,
            module=module,
            calls=1 + (known.calls if known else 0),
            order=(ended := ended + 1),
            shape=tuple(output.shape) if isinstance(output, Tensor) else None,
            input_shape=None if first is None else tuple(first.shape),
            output_type="Tensor" if isinstance(output, Tensor) else type(output).__name__,
            bytes=output.numel() * output.element_size() if isinstance(output, Tensor) else 0,
            output=_form(output),
            arguments=arguments(*(_form(part) for part in ([*args], dict(options)))),
        )

    def hook_for(name: str) -> Any:
        return lambda module, args, options, output: note(name, module, args, options, output)

    handles = []
    try:
        for name, module in model.named_modules():
            if name:
                handles.append(module.register_forward_hook(hook_for(name), with_kwargs=True))
        yield stops
    finally:
        armed = False
        for handle in handles:
            handle.remove()


def _form(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Form(tuple(value.shape))
    if isinstance(value, Mapping):
        return {key: _form(each) for key, each in value.items()}
    return [_form(each) for each in value] if isinstance(value, list | tuple) else None


def peak_bytes(model: nn.Module, inputs: Tensor | Inputs) -> int:
    """Bytes per image that a forward without graph needs at its widest: input and output of the largest leaf."""
    return max((2 * stop.bytes for stop in survey(model, inputs) if stop.leaf), default=0)


def run_once(model: nn.Module, inputs: Tensor | Inputs, names: Sequence[str]) -> bool:
    """Whether each of these layers is settled once it was seen, so that a forward may end after the last of them.

    That is a module that runs exactly once, or a run ``name#k`` that does occur.

    Raises:
        LayerError: A layer does not exist; nothing has run then.
    """
    inputs, asked = as_inputs(inputs), tuple(names)
    known = notes(model).get("survey", {}).get(inputs.kind)
    if known is None or asked not in known.once or not inputs.told_by_kind:
        found = [find(model, text) for text in asked]
        known = survey(model, inputs)
        counts = [next((stop.calls for stop in known if stop.module is module), 0) for _, module in found]
        known.once[asked] = all(
            count and (count == 1 or name.call is not None) and (name.call or 0) < count
            for (name, _), count in zip(found, counts, strict=True)
        )
    return bool(known.once[asked])


def graph_bytes(model: nn.Module, inputs: Tensor | Inputs) -> int:
    """Bytes per image that a forward with graph keeps alive: the outputs of all leaves."""
    return sum(stop.bytes * stop.calls for stop in survey(model, inputs) if stop.leaf)


def survey(model: nn.Module, inputs: Tensor | Inputs) -> Survey:
    """Every module that runs on these inputs, in the order in which they end. One forward, kept in the model's notes.

    A model that fails on these inputs may have layers that do not: they are here, and ``failure`` says why it failed.

    Args:
        model: Eval mode.
        inputs: Only the first example is used.
    """
    inputs = as_inputs(inputs)
    key = inputs.kind
    known: dict[tuple[object, ...], Survey] = notes(model).setdefault("survey", {})
    if key not in known or not inputs.told_by_kind:
        with record(model) as stops:
            output, failure = first_forward(model, inputs)
        seen = Survey(sorted(stops.values(), key=lambda stop: stop.order))
        seen.outputs, seen.failure = tuple(tuple(tensor.shape) for tensor in tensors(output)), failure
        known[key] = seen
    return known[key]


def first_forward(model: nn.Module, inputs: Inputs) -> tuple[Any, str | None]:
    """What a model returns for the first example, and why it fails on it; as if it had not run."""
    first = inputs[:1].detach().clone()
    output, failure, undo = None, None, Undo()
    try:
        try:
            run_itself(undo, model)  # what counts forwards must not have begun to
            note_random(undo, devices_of(model, *first.tensors()))  # nor what draws, to draw others
            with torch.no_grad(), running(first):
                output = first.into(model)
        except ModelError as error:
            failure = str(error)  # the error itself would keep the frames that it passed, and what they hold
        finally:
            undo.back()
    finally:
        undo.back()
    return output, failure


def missing(model: nn.Module, inputs: Tensor | Inputs, otherwise: AttributionError) -> AttributionError:
    """The error for a layer that a survey does not have: ``otherwise``, unless the model failed before it.

    Raises:
        ModelError: The model's own failure, for which it is run once more.
    """
    failure = survey(model, inputs).failure
    if failure is None:
        return otherwise
    notes(model).pop("survey", None)  # what failed may work the next time
    first = as_inputs(inputs)[:1].detach().clone()
    with torch.no_grad(), running(first):
        first.into(model)
    return ModelError(failure)
