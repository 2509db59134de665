"""Cost of conversations: their first turns beside their last ones, and what summaries cost and saved. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from bulkhead_contracts.result import Usage
from bulkhead_contracts.session import TurnTaken


def saved_tokens(whole_tokens: int, shown_tokens: int, model_calls: int) -> int:
    """Estimated tokens that a turn does not read because a summary stands for others: each model call reads it anew.
    A turn that was shown nothing, a task that was submitted by itself, has saved nothing."""
    return max(0, whole_tokens - shown_tokens) * max(1, model_calls) if shown_tokens else 0


def report_sessions(
    turns: Iterable[tuple[str, TurnTaken]], usages: Mapping[str, Usage], features: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row for each feature, the one with the most turns first. turns: with their session, each once; usages and
    features: of turns' tasks that have ended, by task. The first and the last turn are means over the sessions of
    which two turns or more have ended."""
    by_session: dict[tuple[str, str], list[TurnTaken]] = {}
    for session, turn in turns:
        if turn.task in usages:
            by_session.setdefault((features[turn.task], session), []).append(turn)
    by_feature: dict[str, list[list[TurnTaken]]] = {}
    for (feature, _), line in by_session.items():
        by_feature.setdefault(feature, []).append(sorted(line, key=lambda turn: turn.number))
    rows = [_describe_feature(feature, lines, usages) for feature, lines in by_feature.items()]
    return sorted(rows, key=lambda row: (-row["turns"], row["feature"]))


def _describe_feature(feature: str, lines: list[list[TurnTaken]], usages: Mapping[str, Usage]) -> dict[str, Any]:
    turns = [turn for line in lines for turn in line]
    summaries = [turn.summary for turn in turns if turn.summary is not None]
    ends = [(usages[line[0].task], usages[line[-1].task]) for line in lines if len(line) > 1]
    return {
        "feature": feature,
        "sessions": len(lines),
        "turns": len(turns),
        "first_turn": _mean_usage([first for first, _ in ends]),
        "last_turn": _mean_usage([last for _, last in ends]),
        "summaries": {
            "made": sum(summary.used for summary in summaries),
            "in_vain": sum(not summary.used for summary in summaries),
            "tokens": sum(summary.tokens for summary in summaries),
            "cost_usd_micros": sum(summary.cost_usd_micros for summary in summaries),
            "saved_tokens": sum(
                saved_tokens(turn.whole_tokens, turn.memory_tokens, usages[turn.task].model_calls) for turn in turns
            ),
        },
    }


def _mean_usage(usages: list[Usage]) -> dict[str, int] | None:
    if not usages:
        return None
    tokens = sum(usage.input_tokens + usage.output_tokens for usage in usages)
    cost = sum(usage.cost_usd_micros for usage in usages)
    return {"tokens": round(tokens / len(usages)), "cost_usd_micros": round(cost / len(usages))}
