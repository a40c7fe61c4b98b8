"""Check the responses that readers got against the changes that a writer made: none stale, none mixed.

Every state of the data has a different average, which identifies the state in a response.
"""

from __future__ import annotations

from typing import NamedTuple


class Read(NamedTuple):
    """A response: when its request started, when it was received, and the price of each day."""

    started: float
    ended: float
    prices: tuple[float, ...]


class Write(NamedTuple):
    """A state of the data: when the change to it started, and when the change was acknowledged."""

    started: float
    ended: float
    price: float


def check(reads: list[Read], writes: list[Write]) -> None:
    """Check a history.

    Args:
        reads: The responses.
        writes: The states in their order. The first one precedes all reads.

    Raises:
        AssertionError: A response is impossible; the message contains it and the reason.
    """
    states = {write.price: number for number, write in enumerate(writes)}
    shown = []
    for each in reads:
        assert len(set(each.prices)) == 1, f"a mixture of states: {each}"
        assert each.prices[0] in states, f"an unknown state: {each}"
        state = states[each.prices[0]]
        assert writes[state].started <= each.ended, f"a state before it began: {each}"
        if state + 1 < len(writes):
            assert writes[state + 1].ended >= each.started, f"a state after it ended: {each}"
        shown.append((each.started, each.ended, state))
    # After a reader has seen a state, later requests of all readers see that state or a later one.
    seen = -1
    ends = sorted((ended, state) for _, ended, state in shown)
    position = 0
    for started, _, state in sorted(shown):
        while position < len(ends) and ends[position][0] < started:
            seen = max(seen, ends[position][1])
            position += 1
        assert state >= seen, f"state {state} was seen after state {seen}"
    assert len({state for _, _, state in shown}) > len(writes) // 2, "too few states were seen for a conclusion"
