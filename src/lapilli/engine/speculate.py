"""Speculation by prompt look-up: what followed the same words before is guessed to follow them again.

lookup = PromptLookup(never=frozenset({image_token_id}))
lookup.extend(prompt)                       # then, each step:
drafts = lookup.draft()                     # checked by the model along with the last known token
lookup.settle(len(drafts), accepted)        # how many it would have said itself
lookup.extend(said)                         # those, and the token that it said after them

The model alone decides, so an answer is the same with and without (arXiv 2211.17192); guesses from the prompt
follow LLMA (arXiv 2304.04487).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lapilli.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LookupOptions:
    """How much is guessed, from what, and when that is given up.

    Matches have `shortest` to `longest` tokens; at most `most` are guessed. `cost` is what checking one more
    guess adds to a step, as a share of a step without any. After `rest` steps off, and twice as many each time it fails
    again, it is tried anew.
    """

    longest: int = 4
    shortest: int = 2
    most: int = 8
    cost: float = 0.1
    rest: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise InputError(f"matches of {self.shortest} to {self.longest} tokens are no range from 1 up")
        if self.most < 1 or self.rest < 1:
            raise InputError(f"most is {self.most} and rest {self.rest}: both must be at least 1")
        if not 0 <= self.cost < 1:
            raise InputError(f"cost is {self.cost}: a guess costs from 0 to less than 1 of a step")


_SLOWNESS = 0.8  # of the running estimate: about the last five steps count
_LONGEST_REST = 64  # times `rest`


class PromptLookup:
    """What one request has read and said, indexed so that a guess takes the same time however long that is."""

    def __init__(self, options: LookupOptions = LookupOptions(), *, never: frozenset[int] = frozenset()) -> None:
        self.options, self.never = options, never
        self.proposed = self.accepted = 0
        """Guesses that were checked, and those that were right, over all steps."""
        self._tokens: list[int] = []
        self._followers: dict[tuple[int, ...], int] = {}  # where the token stands that last followed these
        self._clean = 0  # tokens since the last that is never guessed
        self._length = min(2, options.most)  # guesses at a time: more while all are right
        self._gain = 1.0  # tokens saved a step less what checking cost, in steps
        self._resting, self._rests = 0, 1

    @property
    def active(self) -> bool:
        """Whether it guesses at present."""
        return self._resting == 0

    def extend(self, tokens: Iterable[int]) -> None:
        """Read on, in the prompt or in the answer."""
        known, followers, longest = self._tokens, self._followers, self.options.longest
        for token in tokens:
            place = len(known)
            for length in range(self.options.shortest, min(longest, self._clean) + 1):
                followers[tuple(known[place - length :])] = place
            known.append(token)
            self._clean = 0 if token in self.never else self._clean + 1

    def draft(self) -> list[int]:
        """Guesses at what comes next, none where nothing is known or it does not pay at present.

        They are what followed the latest place where the longest match of the last tokens stood. Where that place
        is near the end, what is guessed already goes on from there: a repetition repeats.
        """
        if self._resting:
            return []
        known = self._tokens
        for length in range(min(self.options.longest, self._clean), self.options.shortest - 1, -1):
            place = self._followers.get(tuple(known[len(known) - length :]))
            if place is not None:
                return self._from(place)
        return []

    def settle(self, proposed: int, accepted: int) -> None:
        """A step is over in which so many guesses were checked, the first `accepted` of them right."""
        if not 0 <= accepted <= proposed:
            raise InputError(f"{accepted} of {proposed} guesses cannot have been right")
        if self._resting:
            self._resting -= 1
            return
        if not proposed:
            return
        self.proposed += proposed
        self.accepted += accepted
        longer = max(self._length, min(2 * proposed, self.options.most))
        self._length = longer if accepted == proposed else max(accepted, 1)
        self._gain = _SLOWNESS * self._gain + (1 - _SLOWNESS) * (accepted - self.options.cost * proposed)
        if self._gain < 0:
            # The next trial ends at its first failure, but for one that begins well.
            self._resting, self._gain = self.options.rest * self._rests, 0.0
            self._rests = min(2 * self._rests, _LONGEST_REST)
        elif self._gain > 0.5:
            self._rests = 1

    def _from(self, place: int) -> list[int]:
        known = self._tokens
        guesses: list[int] = []
        for at in range(place, place + self._length):
            token = known[at] if at < len(known) else guesses[at - len(known)]
            if token in self.never:
                break
            guesses.append(token)
        return guesses
