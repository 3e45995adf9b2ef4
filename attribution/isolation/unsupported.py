"""Models of special kinds: which are refused, and why one cannot give what was asked."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from attribution.errors import LayerError, ModelError
from attribution.isolation.notes import notes
from attribution.running.execution import first_line, lost


def refuse(model: nn.Module) -> None:
    """Refuse what has no values.

    Raises:
        ModelError: Lazy parameters of a model that was never run, or the meta device.
    """
    lazy = (UninitializedParameter, UninitializedBuffer)
    if any(isinstance(tensor, lazy) for tensor in (*model.parameters(), *model.buffers())):
        raise ModelError("model has lazy parameters without values yet; run it once before it is explained")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        if any(hasattr(module, "_hf_hook") for module in model.modules()):
            raise ModelError(
                "model was dispatched by accelerate, which keeps weights on the host or on disk and none on a device "
                "between calls; load it whole on one device: device_map={'': 0}, or without device_map"
            )
        raise ModelError(
            "model has parameters on the meta device, which have no values; build it on a real device, or use "
            "model.to_empty(device='cpu') and load its weights"
        )


class Weights:
    """Whether anybody wrote into a model's parameters meanwhile."""

    def __init__(self) -> None:
        self._versions: list[tuple[Tensor, int]] = []

    def note(self, model: nn.Module) -> None:
        """What they are like now; ``model`` is isolated."""
        parameters: Iterable[Tensor] = notes(model).get("parameters") or model.parameters()
        self._versions = [(each, each._version) for each in parameters if not each.is_inference()]

    def written(self) -> bool:
        """Since `note`."""
        return any(each._version != version for each, version in self._versions)


@contextmanager
def explained(model: nn.Module, weights: Weights | None = None) -> Iterator[None]:
    """Why a model of a special kind cannot give what was asked, in place of what that led to."""
    try:
        yield
    except (LayerError, RuntimeError, AssertionError) as error:
        if lost(error):
            raise
        if weights is not None and _OVERWRITTEN in str(error) and weights.written():
            raise ModelError(
                "the model's parameters were written while it was explained: another thread trains it, or its own "
                "forward writes into them; explain it between two steps, or give copy.deepcopy(model)"
            ) from error
        reason = _reason(model, error)
        if reason is None:
            raise
        raise ModelError(reason) from error


def accelerator_failed(error: BaseException) -> ModelError:
    """What to say of an error that is `lost`, or comes of one."""
    while not isinstance(error, torch.AcceleratorError) and error.__cause__ is not None:
        error = error.__cause__
    return ModelError(
        f"the accelerator failed ({first_line(error)}). It tells so late, at whatever call waits for it next, so that "
        "the fault may lie in an earlier one; this process can use it no more. Start it again with "
        "CUDA_LAUNCH_BLOCKING=1 in the environment to see which operation fails"
    )


_OVERWRITTEN = "modified by an inplace operation"
_FAILURES = {
    "use_reentrant": "the model uses torch.utils.checkpoint with use_reentrant=True, through which torch takes no "
    "gradient of a layer or an image; give the checkpoint use_reentrant=False",
    "Inference tensors": "the model has weights that were made under torch.inference_mode, which take part in no "
    "gradient; build or load it outside of inference_mode, or give copy.deepcopy(model)",
    _OVERWRITTEN: "the model cannot be differentiated: an in-place operation overwrites what its "
    "gradient needs; make that operation out of place",
    "cudnn RNN backward": "the model calls a recurrent layer of cuDNN, which has no gradient in eval mode, and none of "
    "torch's modules for it; set torch.backends.cudnn.enabled = False around the call",
    "CUBLAS_WORKSPACE_CONFIG": "torch multiplies matrices on CUDA deterministically only in a process that was "
    "started with CUBLAS_WORKSPACE_CONFIG=:4096:8 in its environment; start it so, or give deterministic=False",
    "Guard failed": "the exported model takes other shapes only where its export declared them dynamic; export it with "
    "a dynamic batch, e.g. dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)",
}
"""What torch says → what it means for the user."""

_NO_KERNEL = re.compile(r"(\w+)(?: on \w+)? does not have a deterministic implementation")
_INSTEAD = {
    "adaptive_avg_pool": "use nn.AvgPool2d of a fixed size in place of nn.AdaptiveAvgPool2d",
    "reflection_pad": "pad by replication or zeros in place of reflection",
    "upsample": "enlarge by nearest neighbours",
}
"""Part of an operation's name → what can be done without it."""

_NO_GRADIENT = (
    "gradient is cut",
    "cuts the gradient",
    "can require gradients",
    "not require grad",
    "derivative",
    "no gradient of the score reaches",
    "to not have been used in the graph",
)


def _reason(model: nn.Module, error: Exception) -> str | None:
    hookless, text = _hookless(model), str(error)
    if hookless and isinstance(error, LayerError):
        return (
            f"model is {hookless}, whose layers take no hooks; give the eager module it was made from, or use Occlusion"
        )
    for module in model.modules():
        name = f"{type(module).__module__}.{type(module).__name__}"
        if ".quantized" not in name or not name.startswith("torch."):
            continue
        if any(words in text for words in _NO_GRADIENT):
            return f"model is quantised: no gradient passes {name}; give the float model, or use Occlusion"
        if "Quantized" in text and not isinstance(error, ModelError):
            return f"model is quantised: a layer of it gives integers ({name}); name a layer that gives floats"
    found = _NO_KERNEL.search(text)
    if found:
        return _undetermined(found[1])
    return next((reason for words, reason in _FAILURES.items() if words in text), None)


def _undetermined(operation: str) -> str:
    other = next((f", or {words}" for part, words in _INSTEAD.items() if part in operation), "")
    return (
        f"torch has no deterministic {operation}, which this model needs, and deterministic kernels were asked for by "
        "Execution(deterministic=True) or torch.use_deterministic_algorithms(True); leave both off, or give the latter "
        f"warn_only=True alone{other}"
    )


def _hookless(model: nn.Module) -> str | None:
    """What a model is called whose layers are no modules that run."""
    if scripted(model):
        return "TorchScript"
    if isinstance(model, fx.GraphModule):
        calls = [str(node.target) for node in model.graph.nodes if node.op == "call_module"]
        return None if any(name != "_guards_fn" for name in calls) else "an exported graph"
    return None


def scripted(model: nn.Module) -> bool:
    """Whether the model holds TorchScript."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
