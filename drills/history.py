"""What readers were shown, checked against what a writer did: no stale answer, and no mixture of states.

Every state of the data has an average of its own, so an answer tells which state it shows.
"""

from __future__ import annotations

from typing import NamedTuple


class Read(NamedTuple):
    """An answer: when it was asked for, when it was there, and the state that each day showed."""

    started: float
    ended: float
    prices: tuple[float, ...]


class Write(NamedTuple):
    """A state of the data: when the change to it was begun, and when it was surely done."""

    started: float
    ended: float
    price: float


def check(reads: list[Read], writes: list[Write]) -> None:
    """Check a history.

    Args:
        reads: What readers were shown.
        writes: The states, in their order; the first was there before anybody read.

    Raises:
        AssertionError: An answer was none that it may have been; the message tells which and why.
    """
    states = {write.price: number for number, write in enumerate(writes)}
    shown = []
    for each in reads:
        assert len(set(each.prices)) == 1, f"a mixture of states: {each}"
        assert each.prices[0] in states, f"a state that nobody has made: {each}"
        state = states[each.prices[0]]
        assert writes[state].started <= each.ended, f"a state that was not there yet: {each}"
        if state + 1 < len(writes):
            assert writes[state + 1].ended >= each.started, f"a state that was over: {each}"
        shown.append((each.started, each.ended, state))
    # Whoever asks after somebody was shown a state is shown that state or a later one.
    seen = -1
    ends = sorted((ended, state) for _, ended, state in shown)
    position = 0
    for started, _, state in sorted(shown):
        while position < len(ends) and ends[position][0] < started:
            seen = max(seen, ends[position][1])
            position += 1
        assert state >= seen, f"state {state} was shown after state {seen}"
    assert len({state for _, _, state in shown}) > len(writes) // 2, "too few states were seen to tell anything"
