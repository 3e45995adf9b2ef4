"""Where the exits of all windows come together: the rest of the network, and the differences of scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from attribution.attributor import Run
from attribution.running.upload import upload
from attribution_hooks.chunks import in_parts
from attribution_hooks.incremental.graph import Program

Pair = tuple[int, int]


class Sink:
    """Takes what the rest of the network reads, runs it in full batches, and fills in the differences.

    Groups are small, and the rest may be all weights: it is run when there are enough windows for it. A rest without
    weights runs at once on a CPU, since to join what waits is to copy it.

    Args:
        run: What is explained of what the model returns.
        program: Its rest is run.
        clean: (n, K), by the engine itself, so that its rounding cancels.
        part: Which images of the call these are.
        windows: How many the lattice has.
        size: Windows per batch.
        asked: (window, image) whose logits are kept for the proof.

    Attributes:
        images: n.
        macs: Multiply-accumulates so far.
        target: (n, T).
        deltas: (windows · n, T), window by window.
    """

    def __init__(
        self,
        run: Run[Any],
        program: Program,
        clean: Tensor,
        part: slice,
        windows: int,
        size: int,
        asked: Sequence[Pair],
    ) -> None:
        self._score, target = run.settled
        self.target = target = target[part]
        self.images = len(target)
        self.macs = 0
        precise = torch.promote_types(clean.dtype, torch.float32)
        self.deltas = clean.new_empty((windows * self.images, target.shape[1]), dtype=precise)
        self._run, self._program, self._first = run, program, part.start
        self._clean = self._score.score_of(clean).gather(1, target)
        self._size = size
        self._at_once = not program.weighs and clean.device.type == "cpu"
        self._waiting: list[tuple[dict[fx.Node, Tensor], list[Pair]]] = []
        self._asked: dict[Pair, Tensor | None] = dict.fromkeys(asked)
        self._strongest: list[tuple[Tensor, Tensor, Tensor]] = []
        self._asked_among = self._fewest = windows * self.images + 1
        self._shortest: list[tuple[Tensor, Tensor]] = []

    @property
    def asked(self) -> tuple[Tensor, Tensor]:
        """(P,) rows of ``deltas`` of the pairs that were asked for, and their logits (P, K)."""
        at = np.array([window * self.images + image for window, image in self._asked])
        return upload(at, self.deltas.device), torch.stack([row for row in self._asked.values() if row is not None])

    @property
    def strongest(self) -> tuple[Tensor, Tensor]:
        """(1,), the row of ``deltas`` that moves a score most, and the logits (1, K) of its window."""
        strength, at, logits = (torch.cat(parts) for parts in zip(*self._strongest, strict=True))
        most = strength.argmax(dim=0, keepdim=True)
        return at[most], logits[most]

    @property
    def shortest(self) -> list[tuple[Tensor, Tensor]]:
        """The same of a window of the shortest batch, where all that were asked for went through the rest with more.

        A rest may answer otherwise about few rows.
        """
        return self._shortest if self._fewest < self._asked_among else []

    def take(self, values: dict[fx.Node, Tensor], pairs: list[Pair]) -> None:
        """Exits (B, …) for windows of the lattice and images; more of the former are ignored."""
        if sum(len(pairs) for _, pairs in self._waiting) + len(pairs) > self._size:
            self.flush()
        self._waiting.append((values, pairs))
        if self._at_once:
            self.flush()

    def flush(self) -> None:
        """Run what waits; where that fails, it goes on waiting."""
        if not self._waiting:
            return
        pairs = [pair for _, part in self._waiting for pair in part]
        parts = {node: [v[node][: len(part)] for v, part in self._waiting] for node in self._program.exits}
        values = {node: torch.cat(of) if len(of) > 1 else of[0] for node, of in parts.items()}
        self._waiting = [(values, pairs)]
        rows_of = upload(np.array([window * self.images + image for window, image in pairs]), self.deltas.device)

        def work(rows: Sequence[int]) -> None:
            part = slice(rows[0], rows[-1] + 1)
            output = self._program.finish({node: value[part] for node, value in values.items()})
            images = rows_of[part] % self.images
            self._fill(self._run.matrix(output, images + self._first), pairs[part], rows_of[part], images)
            self.macs += len(rows) * self._program.rest_macs

        in_parts(range(len(pairs)), self._size, work, lambda: None)
        self._waiting = []

    def _fill(self, logits: Tensor, pairs: list[Pair], at: Tensor, images: Tensor) -> None:
        scores = self._score.score_of(logits).gather(1, self.target[images])
        found = (self._clean[images] - scores).to(self.deltas.dtype)
        self.deltas.index_copy_(0, at, found)
        most = found.abs().amax(dim=1)
        first = most.argmax(dim=0, keepdim=True)
        self._strongest.append((most[first], at[first], logits[first]))
        if len(pairs) < self._fewest:
            self._fewest, self._shortest = len(pairs), [(at[:1], logits[:1].clone())]
        for row, pair in enumerate(pairs):
            if pair in self._asked:
                self._asked[pair] = logits[row].clone()
                self._asked_among = min(self._asked_among, len(pairs))
