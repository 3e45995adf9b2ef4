"""Layer outputs, caught on the way: the one place where hooks are set."""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.isolation import alone
from attribution.layers import LayerName

Keep = Callable[[LayerName, Tensor], Tensor]


class _Halt(BaseException):
    """Ends a forward whose rest nobody asked for; a model's own ``except Exception`` must not catch it."""


class Captured:
    """What the layers put out during one forward; read by the name that was asked for, after the forward."""

    def __init__(self, names: Sequence[LayerName]) -> None:
        self._names = {name.text: name for name in names}
        self._calls = dict.fromkeys(self._names, 0)
        self._tensors: dict[str, Tensor] = {}
        self._outputs: dict[str, Any] = {}
        self._uncopied: dict[str, int] = {}

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
            del self._uncopied[text]
        return self._tensors[text]

    @property
    def complete(self) -> bool:
        """Whether every layer was caught."""
        return len(self._tensors) == len(self._names)

    @property
    def intact(self) -> bool:
        """Whether nothing was written into what was kept without a copy, as a ``finally`` of the model might."""
        return all(self._tensors[text]._version == version for text, version in self._uncopied.items())

    def take(self, name: LayerName, output: Any, *, leaf: bool, ends: bool, keep: Keep | None) -> Any:
        """Keep the output of a run that was asked for, and say what the network gets instead: a copy."""
        call = self._calls[name.text]
        self._calls[name.text] = call + 1
        if call != (name.call or 0):
            return None
        tensor = output if name.key is None else _item(output, name.key)
        if not isinstance(tensor, Tensor):
            self._outputs[name.text] = output
            return None
        if leaf:
            torch.set_grad_enabled(True)
            if not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_()
        else:
            tensor = tensor.detach()
            if keep is not None:
                tensor = keep(name, tensor)
            elif ends and len(self._tensors) + 1 == len(self._names) and not tensor.is_inference():
                self._uncopied[name.text] = tensor._version  # the forward ends here: nothing is left to write into it
            else:
                tensor = tensor.clone()
            self._tensors[name.text] = tensor
            return None
        self._tensors[name.text] = tensor
        return tensor.clone() if name.key is None else _replaced(output, name.key, tensor.clone())


@contextmanager
def capture(
    model: nn.Module, names: Sequence[str], *, leaf: bool = False, stop: bool = False, keep: Keep | None = None
) -> Iterator[Captured]:
    """Catch the outputs of layers in every forward inside the block, in this thread; no hook outlives it.

    A copy is kept, and the network goes on with the layer's own output (with ``leaf`` the other way round), so that a
    later in-place operation, also on what the output is a view of, changes nothing that was caught. With ``stop`` the
    last layer is kept without a copy, since nothing follows it; it is copied when it is read if anything else, such
    as a parameter or a cache of the model, lies on its memory.

    Args:
        model: Isolated.
        names: As the user writes them.
        leaf: Run without graph up to the first of the layers and with graph from there on, so that gradients with
            respect to what was caught can be taken. Needs gradients switched off by the caller; the mode is
            restored at the end.
        stop: End the forward, and with it the block, once every layer was caught: nothing later runs. Only for
            layers of which `layers.run_once` holds, since a later run would go unseen.
        keep: What to keep of an output instead of a copy, a tensor on its own memory. Not with ``leaf``.

    Raises:
        LayerError: A layer does not exist.
    """
    found = [layers.find(model, text) for text in names]
    caught = Captured([name for name, _ in found])
    owner = threading.get_ident()
    armed = True
    halt = _Halt()

    def hook_for(name: LayerName) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if threading.get_ident() != owner or not armed:
                return None
            passed_on = caught.take(name, output, leaf=leaf, ends=stop, keep=keep)
            if stop and caught.complete:
                raise halt
            return passed_on

        return hook

    mode = torch.is_grad_enabled()
    handles = []
    try:
        for name, module in found:
            handles.append(module.register_forward_hook(hook_for(name)))
        yield caught
    except _Halt as reached:
        if reached is not halt:
            raise
        reached.__traceback__ = (
            None  # it holds the forward's frames, they hold it: activations would await the collector
        )
    finally:
        armed = False
        torch.set_grad_enabled(mode)
        for handle in handles:
            handle.remove()


def _item(output: Any, key: str | int) -> Any:
    place = _place(output, key)
    if isinstance(output, Mapping) and place not in output:
        return None
    try:
        return output[place]
    except (KeyError, IndexError, TypeError):
        return None


def _replaced(output: Any, key: str | int, tensor: Tensor) -> Any:
    place = _place(output, key)
    if isinstance(output, tuple):
        items = [tensor if index == place else item for index, item in enumerate(output)]
        return type(output)(*items) if hasattr(output, "_fields") else tuple(items)
    output = copy.copy(output)
    output[place] = tensor
    return output


def _place(output: Any, key: str | int) -> str | int:
    """The key of an item: in a mapping without that number, the number's text, else its position if items have one."""
    if not isinstance(output, Mapping) or not isinstance(key, int) or key in output:
        return key
    if str(key) in output or hasattr(output, "__missing__"):
        return str(key)
    try:
        item = output[key]  # as the outputs of Transformers' models are indexed
    except (KeyError, IndexError, TypeError):
        return key
    return next((place for place in output if output[place] is item), key)
