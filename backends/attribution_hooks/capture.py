"""Layer outputs and inputs, caught on the way: the one place where hooks are set."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from attribution import layers
from attribution.layers import LayerName
from attribution.running import torch_internals
from attribution.running.nested import tensors
from attribution.running.torch_internals import storage_of
from attribution.running.values import alone

Keep = Callable[[LayerName, Tensor], Tensor]
Gradients = Literal["from the layers", "to the layers", "to the images"]
"""What gradients of a forward are for, and so where its graph begins and what is kept of a layer.

"from the layers": the graph begins at the first layer, whose very output is kept. "to the layers": it begins at the
images; a copy is kept, and where in the graph the output stands. "to the images": likewise; what is kept has the graph.
"""


class _Halt(BaseException):
    """Ends a forward whose rest nobody asked for; a model's own ``except Exception`` must not catch it."""


class Captured:
    """What the layers put out during one forward; read by the name that was asked for, after the forward."""

    def __init__(self, names: Sequence[LayerName]) -> None:
        self._names = {name.text: name for name in names}
        self._calls = dict.fromkeys(self._names, 0)
        self._tensors: dict[str, Tensor] = {}
        self._outputs: dict[str, Any] = {}
        self._uncopied: set[str] = set()
        self._versions: dict[str, int] = {}
        self._indirect = False
        self._switched = False
        self.edges: dict[str, GradientEdge] = {}
        self.gradients_stayed_on = True

    def __getitem__(self, text: str) -> Tensor:
        """The tensor as the layer gave it.

        Raises:
            LayerError: The layer never ran, ran several times (or not that often), or gave no tensor.
        """
        name, calls = self._names[text], self._calls[text]
        if not calls:
            raise layers.never_ran(text)
        if (calls > 1 and name.call is None) or (name.call is not None and name.call >= calls):
            raise layers.runs_often(name, calls)
        if text not in self._tensors:
            raise layers.not_a_tensor(name, self._outputs[text])
        if text in self._uncopied and not alone(self._tensors[text]):
            self._tensors[text] = self._tensors[text].clone()
            self._uncopied.remove(text)
            del self._versions[text]
        return self._tensors[text]

    @property
    def complete(self) -> bool:
        """Whether every layer was caught."""
        return len(self._tensors) == len(self._names)

    @property
    def intact(self) -> bool:
        """Whether nothing was written into what was kept without a copy, as a ``finally`` of the model might."""
        return all(self._tensors[text]._version == version for text, version in self._versions.items())

    @property
    def direct(self) -> bool:
        """Whether the graph from the layers on has all who read what a layer gave.

        It may not where a layer gave one of its inputs, which others may have read before; where somebody wrote into
        the very tensor; or where a gradient mode that the model set ended, and with it the graph.
        """
        return not self._indirect and self.intact and self.gradients_stayed_on

    def take(
        self, name: LayerName, module: nn.Module, given: Any, output: Any, gradients: Gradients | None, *, ends: bool,
        keep: Keep | None,
    ) -> Any:  # fmt: skip
        """Keep the output of a run that was asked for, and say what the network gets instead, if anything.

        Of an input ``output`` is the arguments, ``given``, by position or keyword.
        """
        call = self._calls[name.text]
        self._calls[name.text] = call + 1
        if call != (name.call or 0):
            return None
        keys = name.keys or (layers.only_tensor(output) if name.entry else ())
        tensor = layers.item(output, keys)
        if not isinstance(tensor, Tensor):
            self._outputs[name.text] = output
            return None
        last = ends and len(self._tensors) + 1 == len(self._names)
        if gradients is None:
            self._tensors[name.text] = self._value(name, tensor, last=last, keep=keep)
            return None
        if gradients == "to the images":
            self._tensors[name.text] = tensor if last else tensor.clone()
            return None
        if gradients == "from the layers":
            if not self._switched:  # once: what the model switches off later stays off
                torch.set_grad_enabled(True)
                self._switched = True
            if not tensor.requires_grad:
                self._indirect |= _shares(tensor, given) or (bool(keys) and _has_others(output, tensor))
                tensor = _leaf(tensor, module)
            self._tensors[name.text] = tensor
            self._versions[name.text] = tensor._version
        else:
            if not tensor.requires_grad:
                tensor = _leaf(tensor, module)
            self.edges[name.text] = get_gradient_edge(tensor)
            self._tensors[name.text] = tensor.detach().clone()
            if _shares(tensor, given):
                return None  # who writes into the input later writes into this as well
        return layers.replaced(output, keys, tensor.clone())

    def _value(self, name: LayerName, tensor: Tensor, *, last: bool, keep: Keep | None) -> Tensor:
        tensor = tensor.detach()
        if keep is not None:
            return keep(name, tensor)
        if last and not tensor.is_inference():
            self._uncopied.add(name.text)
            self._versions[name.text] = tensor._version  # the forward ends here: nothing is left to write into it
            return tensor
        return tensor.clone()


@contextmanager
def capture(
    model: nn.Module,
    names: Sequence[str],
    *,
    gradients: Gradients | None = None,
    stop: bool = False,
    keep: Keep | None = None,
) -> Iterator[Captured]:
    """Catch outputs or inputs of layers in every forward inside the block, in this thread; no hook outlives it.

    Of the output and a copy of it one is kept and the network goes on with the other, so that a later in-place
    operation, also on what the output is a view of, changes nothing that was caught. With ``stop`` the last layer is
    kept without a copy, since nothing follows it; it is copied when it is read if anything else, such as a parameter or
    a cache of the model, lies on its memory.

    Args:
        model: Isolated.
        names: As the user writes them.
        gradients: Which will be taken of the forward; ``None``: none. "from the layers" needs gradients switched off by
            the caller and switches them on at the first layer; the mode is restored at the end. Whether that was enough
            tells `Captured.direct`. The others need them switched on, and images that require them.
        stop: End the forward, and with it the block, once every layer was caught: nothing later runs. Only for
            layers of which `layers.run_once` holds, since a later run would go unseen.
        keep: What to keep of an output instead of a copy, a tensor on its own memory. Not with ``gradients``.

    Raises:
        LayerError: A layer does not exist.
    """
    found = [layers.find(model, text) for text in names]
    caught = Captured([name for name, _ in found])
    owner = threading.get_ident()
    armed = True
    halt = _Halt()

    def hook_for(name: LayerName) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if threading.get_ident() != owner or not armed:
                return None
            passed_on = caught.take(name, module, (args, kwargs), output, gradients, ends=stop, keep=keep)
            if stop and caught.complete:
                raise halt
            return passed_on

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            passed_on = hook(module, args, kwargs, layers.arguments(args, kwargs))
            return None if passed_on is None else _as_arguments(passed_on, args, kwargs)

        return before if name.entry else hook

    mode, late = torch.is_grad_enabled(), False
    handles = []
    try:
        for name, module in found:
            setting = module.register_forward_pre_hook if name.entry else module.register_forward_hook
            handles.append(setting(hook_for(name), with_kwargs=True))
        yield caught
        caught.gradients_stayed_on = torch.is_grad_enabled()
    except _Halt as reached:
        if reached is not halt:
            raise
        reached.__traceback__ = (
            None  # it holds the forward's frames, they hold it: activations would await the collector
        )
    except GeneratorExit:  # an interrupt left this frame behind; the run has given the mode back since
        late = True
        raise
    finally:
        armed = False
        if not late:
            torch_internals.set_gradients(mode)
        for handle in handles:
            handle.remove()


@contextmanager
def substituted(model: nn.Module, text: str, instead: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """In every forward inside the block, in this thread, the network gets another tensor from a layer.

    Args:
        model: Isolated.
        text: The layer's output or input, as the user writes it.
        instead: What the network gets in place of a tensor; ``None``: the tensor itself.

    Raises:
        LayerError: The layer does not exist.
    """
    name, module = layers.find(model, text)
    owner, armed, call = threading.get_ident(), True, 0

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        nonlocal call
        if threading.get_ident() != owner or not armed:
            return None
        call += 1
        if call - 1 != (name.call or 0):
            return None
        keys = name.keys or (layers.only_tensor(output) if name.entry else ())
        new = instead(layers.item(output, keys))
        return None if new is None else layers.replaced(output, keys, new)

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        given = hook(module, args, kwargs, layers.arguments(args, kwargs))
        return None if given is None else _as_arguments(given, args, kwargs)

    handle = None
    try:
        setting: Any = module.register_forward_pre_hook if name.entry else module.register_forward_hook
        handle = setting(before if name.entry else hook, with_kwargs=True)
        yield
    finally:
        armed = False  # an interrupt may have hidden the handle
        if handle is not None:
            handle.remove()


def _as_arguments(given: Any, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(given[index] for index in range(len(args))), {key: given[key] for key in kwargs}


def _leaf(tensor: Tensor, module: nn.Module) -> Tensor:
    """A tensor without a graph as the beginning of one: itself, for all who hold it, unless the model does."""
    held = (*module.parameters(), *module.buffers(), *vars(module).values())
    if isinstance(tensor, nn.Parameter) or tensor.is_inference() or any(tensor is other for other in held):
        tensor = tensor.clone() if tensor.is_inference() else tensor.detach()
    return tensor.requires_grad_()


def _shares(tensor: Tensor, given: Any) -> bool:
    """Whether a tensor lies on the memory of what a layer was given."""
    if tensor.layout != torch.strided:
        return any(tensor is other for other in tensors(given))
    place = storage_of(tensor)
    return any(other.layout == torch.strided and storage_of(other) == place for other in tensors(given))


def _has_others(output: Any, tensor: Tensor) -> bool:
    """Whether an output has other values beside the one that is kept, which may come from it."""
    return any(other is not tensor and other.is_floating_point() for other in tensors(output))
