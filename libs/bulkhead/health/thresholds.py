"""The detectors' thresholds, fixed before the held-back set that scores them was made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopThresholds:
    """Thresholds of the loop detectors. Counts are of acts, rounds of whole periods; the first round is news,
    the rest is not.
    """

    repeat_warn: int = 3
    repeat_stop: int = 4
    """The same call with the same result in a row: three repetitions of the first. Also of the same failing call."""
    cycle_warn_rounds: int = 2
    cycle_stop_rounds: int = 3
    max_period: int = 24
    """Longest period: six calls of one agent, or a ring of twelve agents with one call each before the next."""
    stagnation_acts: int = 6
    """Acts without anything new, at least; and three times as many as there are different ones among them."""
    error_warn: int = 3
    error_stop: int = 8
    error_warn_passing: int = 6
    list_error_stop: int = 24
    """The same error of the same action with other arguments: trying around is honest for longer than repeating; still
    longer where the entries of a list are not there."""
    monologue_warn: int = 8
    monologue_warn_stale: int = 2
    monologue_stop: int = 6
    monologue_stop_stale: int = 4
    """Texts to nobody without a call between them, and how many of the last ones in a row said little new."""
    stale_below: float = 0.5
    """Part of the phrases of three words of a text that is new, below which the text says little new."""
    product_chars: int = 60
    """Length from which on a call's arguments are a piece of work; handed in again unchanged, nothing became of what
    was said of it."""
    patient_stop: int = 20
    """Rounds of acts whose effect shows elsewhere (a key pressed, a batch), of looks that have been seen to move, and
    retries ten seconds apart of an error that passes."""
    begun_warn: int = 8
    """Rounds of what begins anew each time, as a person does who runs the same program again; `patient_stop` end it."""
    lively: int = 3
    """Different results of one call from which on it has been seen to move."""
    retries_stop: int = 7
    """Retries of an error that passes, where no times are known: five are usual."""
    prompted_most: int = 16
    """Times that the same may be done again after others did something new in between."""
    poll_gap_ms: int = 1_000
    """Pause from which on looking again at something pending is polling; sooner, it is a busy loop."""
    look_gap_ms: int = 10_000
    calm_gap_ms: int = 30_000
    even_gaps: float = 1.25
    rare_gap_ms: int = 300_000
    """Even pauses (the longest so many times the shortest) of half a minute, or any of five minutes, are a watch."""
    backoff_growth: float = 1.3
    backoff_total: float = 2.0
    backoff_plateau: float = 0.9
    backoff_even: float = 1.3
    backoff_even_short: float = 2.0
    """Each pause longer than the one before by the first, in all by the second, then give or take the third. Where
    nothing says that waiting helps, the largest growth is so many times the smallest; more after a short answer."""
    poll_warn_rounds: int = 30
    informative_chars: int = 40
    """Length from which on a result tells whether it was the same question."""
    page_chars: int = 200
    """Length from which on a result is a page: however long one pauses, it is read already."""
    blind_chars: int = 24
    """Length up to which the answer to an act that moves on shows nothing."""
    window_acts: int = 80
    """Acts kept per agent and per lineage: three rounds of the longest period, and some."""
    max_agents: int = 64
    """Agents of one lineage that are kept apart; the one that was silent longest is dropped."""


@dataclass(frozen=True, slots=True)
class ChatterThresholds:
    """Thresholds of coordination against work: messages and tokens, within a window of messages of a lineage."""

    window: int = 256
    warn_messages: int = 16
    warn_ratio: float = 4.0
    stop_messages: int = 40
    stop_ratio: float = 10.0
    warn_tokens: int = 20_000
    stop_tokens: int = 100_000
    group_warn_messages: int = 12
    group_stop_messages: int = 30
    """Messages inside one group since one of it last did work. The first from one agent to another, and what is said
    after work of one's own, are no chatter."""
    telling_factor: int = 2
    telling_part: float = 0.5
    """Where more than this part of what is said is new by its words, it may go on so many times as long."""
    stale_stop_messages: int = 14
    stale_stop_part: float = 0.6
    """So many of those messages, and so great a part of them, are what one of them had said before, word by word."""
    excuse_part: float = 0.6
    """As so much of one counts an answer to such a message that says in whatever words that nothing came of it."""


@dataclass(frozen=True, slots=True)
class BreakerThresholds:
    """Thresholds of one breaker: when it opens, for how long, and what closes it."""

    window_ms: int = 60_000
    min_calls: int = 10
    error_rate: float = 0.5
    slow_ms: int = 60_000
    slow_rate: float = 0.8
    spike_factor: float = 8.0
    spike_min_calls: int = 200
    open_ms: int = 30_000
    max_open_ms: int = 600_000
    trials: int = 3
    chatter_tasks: int = 3
    chatter_people: int = 2
    chatter_window_ms: int = 600_000
    """An agent that only talked in so many tasks of so many people within so long, each of which was stopped for it
    after its warning, is held back in all of them; once it was, the first such task while it is tried again does. Where
    nobody else used it meanwhile, one person's tasks do."""


@dataclass(frozen=True, slots=True)
class StallThresholds:
    """Thresholds of stalls."""

    after_ms: int = 30_000
    """Nothing outstanding for so long, and not ended."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All of them."""

    loops: LoopThresholds = LoopThresholds()
    chatter: ChatterThresholds = ChatterThresholds()
    breakers: BreakerThresholds = BreakerThresholds()
    stalls: StallThresholds = StallThresholds()


DEFAULT = Thresholds()
