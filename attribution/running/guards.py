"""``Guards``: what must be true of tensors before an answer is given, looked at together where each look is a wait."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from attribution.errors import AttributionError
from attribution.inputs import checks
from attribution.running import torch_internals
from attribution.running.values import grouped

FEW = 2
"""As many tensors are measured one by one: torch measures any number together by two kernels."""

_LARGEST = float("inf")
"""The order of the norm that is the largest |value|; NaN where a value is."""

Reason = Callable[[], AttributionError]


@dataclass
class Guards:
    """Tensors that must be finite, and what to say where one is not.

    On the host a tensor is looked at as soon as it is there. A look at a tensor of another device waits until all that
    was asked of the device is done, so that there the looks are put off to one at the end of the call. It comes before
    anything is returned, and before any other error is raised that bad values may have led to.

    Attributes:
        late: Whether looks at what comes from now on are put off.
    """

    late: bool = False
    _waiting: list[tuple[Tensor, Reason]] = field(default_factory=list)
    _flags: list[tuple[Tensor, Callable[[], None]]] = field(default_factory=list)
    _sizes: list[Tensor] = field(default_factory=list)
    _reasons: list[Reason] = field(default_factory=list)
    _sums: dict[int, tuple[weakref.ref[Tensor], complex]] = field(default_factory=dict)

    def finite(self, tensor: Tensor, otherwise: Reason) -> None:
        """No value of a tensor is NaN or infinite.

        Raises:
            AttributionError: What ``otherwise`` gives; later, by `settle`, where looks are put off.
        """
        if (self.late or self._waiting or self._flags) and _measurable(tensor):
            self._waiting.append((tensor.detach(), otherwise))
            if not self.late:  # one wait for this look and for those that were put off to the next one
                self.settle()
        elif (total := checks.finite(tensor)) is None:
            raise otherwise()
        else:
            self._sums[id(tensor)] = weakref.ref(tensor), total

    def seen(self, tensor: Tensor) -> bool:
        """Whether this very tensor was looked at, and its sum says that a value of it is not zero."""
        found = self._sums.get(id(tensor))
        return found is not None and found[0]() is tensor and found[1] != 0

    def never(self, flag: Tensor, otherwise: Reason) -> None:
        """A flag is not raised. On a device other than the host that is seen at the next look, whenever that is.

        Raises:
            AttributionError: What ``otherwise`` gives; later, by `finite` or `settle`, on another device.
        """
        if flag.device.type != "cpu":
            self._waiting.append((torch.where(flag, _LARGEST, 0.0), otherwise))
        elif bool(flag):
            raise otherwise()

    def tell(self, flag: Tensor, then: Callable[[], None]) -> None:
        """Call a function where a flag is raised; on a device other than the host at the next look."""
        if flag.device.type != "cpu":
            self._flags.append((flag, then))
        elif bool(flag):
            then()

    def measure(self) -> None:
        """Take the sizes of what waits for a look, so that the tensors themselves may go."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        tensors = [tensor for tensor, _ in waiting]
        sizes = dict[int, Tensor]()
        with torch.no_grad():
            for group in grouped(tensors):
                together = [tensors[index] for index in group]
                several = len(group) > FEW
                found = torch_internals.norms_together(together, _LARGEST) if several else map(_largest, together)
                sizes.update(zip(group, found, strict=True))
        self._sizes += [sizes[index] for index in range(len(tensors))]
        self._reasons += [reason for _, reason in waiting]

    def settle(self, beside: Sequence[Tensor] = ()) -> list[list[float]]:
        """Look at all that waits, and at the numbers in other tensors of the devices at the same time.

        Args:
            beside: Tensors of numbers that are wanted on the host.

        Returns:
            Those numbers, tensor by tensor.

        Raises:
            AttributionError: A tensor was not finite: the first one.
        """
        self.measure()
        sizes, reasons, flags = self._sizes, self._reasons, self._flags
        self._sizes, self._reasons, self._flags = [], [], []
        numbers = _read([*sizes, *beside, *(flag for flag, _ in flags)])
        for (size,), reason in zip(numbers[: len(sizes)], reasons, strict=True):
            if not isfinite(size):
                raise reason()
        wanted = len(sizes) + len(beside)
        for (raised,), (_, then) in zip(numbers[wanted:], flags, strict=True):
            if raised:
                then()
        return numbers[len(sizes) : wanted]

    def broken(self) -> AttributionError | None:
        """The error of the first tensor that was not finite, of those that nobody looked at yet."""
        try:
            self.settle()
        except AttributionError as error:
            return error
        except Exception:  # the device itself may be lost
            return None
        return None


def _largest(tensor: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(tensor, _LARGEST)
    return size


def _measurable(tensor: Tensor) -> bool:
    """Whether the largest |value| says if all are finite."""
    plain = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized)
    return plain and tensor.device.type != "cpu" and tensor.is_floating_point() and tensor.numel() > 0


def _read(tensors: Sequence[Tensor]) -> list[list[float]]:
    """The numbers in tensors, by one copy from each device."""
    found: list[list[float]] = [[] for _ in tensors]
    for device in dict.fromkeys(tensor.device for tensor in tensors):
        places = [index for index, tensor in enumerate(tensors) if tensor.device == device]
        flat = [tensors[index].flatten() for index in places]
        numbers = (torch.cat(flat) if len(flat) > 1 else flat[0]).tolist()
        for index, part in zip(places, flat, strict=True):
            found[index], numbers = numbers[: len(part)], numbers[len(part) :]
    return found
