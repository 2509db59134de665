"""Every number that decides between honest and not, named. Fixed before the held-back set that scores them was made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopThresholds:
    """Of the loop detectors. Counts are of acts, rounds of whole periods; the first round is news, the rest is not."""

    repeat_warn: int = 3
    repeat_stop: int = 4
    """The same call with the same arguments and the same result, so often in a row: three repetitions of the first."""
    cycle_warn_rounds: int = 2
    cycle_stop_rounds: int = 3
    max_period: int = 24
    """Longest period: six calls of one agent, or a ring of twelve agents with one call each before the next."""
    stagnation_acts: int = 6
    stagnation_rounds: int = 3
    """Nothing new for so many acts, and so many times as many as there are different ones among them."""
    error_warn: int = 3
    error_stop: int = 8
    error_warn_passing: int = 6
    """The same error of the same action with other arguments: trying around is honest for longer than repeating. An
    outage that passes hits one item after the other: it is warned of later."""
    beyond_warn: int = 4
    beyond_stop: int = 9
    """Pages asked for in a row that all said that there is nothing."""
    product_chars: int = 60
    """From this length on a call's arguments are a piece of work; handed in again unchanged, nothing became of what was
    said of it."""
    counting_warn_rounds: int = 3
    counting_stop_rounds: int = 4
    """Rounds that lead nowhere and differ in numbers, and in what was handed out, alone: three repetitions of one."""
    handed_chars: int = 20
    """From this length on words that go round among agents are no mere nod."""
    stuffing_stop: int = 8
    stuffing_phrases: int = 2
    """So many texts handed in, each the one before and some of that once more: so many phrases are the seam's."""
    monologue_warn: int = 8
    monologue_warn_stale: int = 2
    monologue_stop: int = 6
    monologue_stop_stale: int = 4
    """Texts to nobody without a call between them, and how many of the last ones in a row said little new."""
    stale_below: float = 0.5
    """A text says little new when less than this part of its phrases of three words is new."""
    near: float = 0.6
    near_answers: float = 0.4
    """Jaccard similarity from which on two texts are near-duplicates; and two answers, which are longer."""
    paraphrase_warn: int = 3
    paraphrase_window: int = 8
    poll_gap_ms: int = 1_000
    """Looking again at something pending after so long is polling; sooner, it is a busy loop."""
    look_gap_ms: int = 10_000
    """Looking again so late at a figure that has been seen to change by itself is polling. Once it was seen to change
    after it had stayed, or to come back to what it had been, `poll_gap_ms` will do."""
    retries_stop: int = 7
    """Where no times are known an error that passes by itself is tried again so often before it is a loop: five retries
    are usual."""
    comes_up_stop: int = 20
    """What was just set going (a machine that boots) is asked for so often, ten seconds apart, before it is a loop."""
    blind_stop: int = 20
    blind_chars: int = 24
    """Acts that move on and show nothing (a key pressed, a step, a throw), so often in a row: what they change shows
    elsewhere. So many rounds, too, of one of them and a look that has shown something else under the same act before.
    Its answer is no longer than so many characters."""
    lively: int = 3
    """From so many different results of one look on it has been seen to move."""
    prompted_most: int = 16
    """So often the same may be done again after others did something new in between."""
    list_error_stop: int = 24
    """The same error of a list that is gone through: its entries may all be of that kind."""
    fruitless_warn: int = 6
    fruitless_stop: int = 10
    """The same thing asked for in other words, and each time nothing is found, or what was found before."""
    barren_warn: int = 5
    barren_stop: int = 6
    """The same looks again and again, which show something else each time that nobody uses: an advert, a hint."""
    barren_window: int = 24
    """So many acts back it is looked for what had been answered before."""
    down_warn: int = 3
    down_stop: int = 4
    """A task handed from one to the next, so deep, by agents who did nothing but look."""
    calm_gap_ms: int = 30_000
    even_gaps: float = 1.25
    rare_gap_ms: int = 300_000
    """Looking again at anything short is polling when it comes evenly (the longest pause so many times the shortest)
    and not too often, or rarely. A slow model's pauses are neither."""
    backoff_growth: float = 1.3
    backoff_total: float = 2.0
    backoff_plateau: float = 0.9
    backoff_steady: float = 1.5
    backoff_exact: float = 1.3
    backoff_even: float = 2.0
    """Each pause longer than the one before by the first; once they have grown by the second they may stay as they are,
    give or take the third. Where each grows by about the same nobody paused so by chance: within `steady` if the result
    says that it is pending or the error that it will pass, within `exact` if not. Pauses that grow up to a plateau must
    grow evenly, too, where nothing says so, and are no excuse for an error that does not."""
    informative_chars: int = 40
    """From this length on a result tells whether it was the same question."""
    page_chars: int = 200
    """And from this one on it is a page: however long one pauses, it is read already."""
    poll_warn_rounds: int = 30
    window_acts: int = 80
    """Acts kept per agent and per lineage: three rounds of the longest period, and some."""
    max_agents: int = 64
    """Agents of one lineage that are kept apart; the one that was silent longest is dropped."""


@dataclass(frozen=True, slots=True)
class ChatterThresholds:
    """Of coordination against work: messages and tokens, within a window of messages of a lineage."""

    window: int = 256
    warn_messages: int = 16
    warn_ratio: float = 4.0
    stop_messages: int = 40
    stop_ratio: float = 10.0
    warn_tokens: int = 20_000
    stop_tokens: int = 100_000
    group_warn_messages: int = 12
    group_stop_messages: int = 30
    telling_factor: int = 2
    telling_part: float = 0.5
    """Where more than this part of what is said is new by its words, it may go on so many times as long."""
    """Messages inside one group since one of it last did work. The first from one agent to another, and what is said
    after work of one's own, are no chatter."""
    courtesies_warn: int = 5
    courtesies_stop: int = 8
    courtesies_part: float = 0.6
    """So many messages in a row that only thank, agree or take leave, and three by each of
    those who do; in less than the rest of them one sentence may say something else."""
    stale_stop_messages: int = 14
    stale_stop_part: float = 0.6
    """So many of those messages, and so great a part of them, are what one of them had said before, word by word."""
    excuse_part: float = 0.6
    """As so much of one counts an answer to such a message that in whatever words says that nothing came of it."""


@dataclass(frozen=True, slots=True)
class BreakerThresholds:
    """Of one breaker: when it opens, for how long, and what closes it."""

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
    trial_timeout_ms: int = 120_000
    chatter_tasks: int = 3
    chatter_people: int = 2
    chatter_window_ms: int = 600_000
    """An agent that only talked in so many tasks of so many people within so long, each of which was stopped for it
    after its warning, is held back in all of them; once it was, the first such task while it is tried again does. Where
    nobody else used it meanwhile, one person's tasks do."""


@dataclass(frozen=True, slots=True)
class StallThresholds:
    """Of stalls."""

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
