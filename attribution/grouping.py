"""``Grouping``: which techniques of a call go through the model together, and what each pass starts from."""

from collections.abc import Hashable, Sequence

from attribution.inputs.inputs import Inputs
from attribution.inputs.lent import Lent
from attribution.members import Member
from attribution.passes import Pass
from attribution.scores.score import Score


class Grouping:
    """The passes of a call. Each has inputs of its own, but that those who only read them share the user's.

    A model that is run itself, and not as a copy, may know the user's inputs from elsewhere and write there, so that
    nobody reads them then.

    Args:
        members: The techniques.
        starts: Of each, as `Beginning` found them.
        asked: The score of each.
        shown: The user's inputs; ``None`` where the techniques make their own.
        guarded: Whether the model is run itself.

    Attributes:
        lent: What those share who only read; ``None`` where nobody does.
        passes: Members of one family and score together, in the order of the first of each.
    """

    def __init__(
        self,
        members: Sequence[Member],
        starts: Sequence[Inputs],
        asked: Sequence[Score],
        shown: Inputs | None,
        *,
        guarded: bool,
    ) -> None:
        readers = [member.only_reads for member in members]
        self._shown, self.lent = shown, None if shown is None or guarded or not any(readers) else Lent(shown)
        self._copies = [] if shown is None or all(readers) else [*starts[:1]]
        groups: dict[Hashable, list[int]] = {}
        for place, (member, score) in enumerate(zip(members, asked, strict=True)):
            same = score is asked[0] or score == asked[0]  # mostly the very object, whose hash is that of all it holds
            key = (member.asker.family, None if same else score) if len(members) > 1 else None
            groups.setdefault(key, []).append(place)
        self.passes: list[Pass] = []
        for places in groups.values():
            some = [members[place] for place in places]
            self.passes.append(Pass(some, self._start(some, starts[places[0]]), [asked[place] for place in places]))

    def apart(self, failed: Pass, why: str) -> list[Pass]:
        """A pass for each technique of one that failed."""
        pairs = zip(failed.members, failed.asked, strict=True)
        return [
            Pass([member], self._start([member], failed.start.clone()), [asked], why=why) for member, asked in pairs
        ]

    def _start(self, members: Sequence[Member], own: Inputs) -> Inputs:
        """For techniques that go through the model together; ``own`` where they make their inputs."""
        if self._shown is None:
            return own
        if self.lent is not None and all(member.only_reads for member in members):
            return self.lent.inputs
        return self._copies.pop() if self._copies else self._shown.detach().clone()
