"""Verdicts of judges on the answers of an evaluation: each vote of a model is a task of the mesh.

In: an answer, judges, the evaluation's money and record. Out: verdicts. A vote is a slot of the record like a run: its
key is on the disk before it is submitted, so that after a crash it is collected, and not paid again.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bulkhead.evaluation.cases import Check, EvaluationCase, read_texts
from bulkhead.evaluation.judges.certificates import SeatedJudge
from bulkhead.evaluation.judges.grounded import judge_grounding
from bulkhead.evaluation.judges.panels import (
    VOTE_FORM,
    JurorVote,
    PanelVerdict,
    build_material,
    count_votes,
    find_family,
    read_vote,
)
from bulkhead.evaluation.runs import CaseRunOutcome, EvaluationBudget, Runner, RunRecord, RunSlot, make_run
from bulkhead_contracts import bounds

ACCEPTANCE = "it is the JSON object that the instruction asks for"


def read_documents(case: EvaluationCase) -> Mapping[str, str]:
    """Texts of a case's documents by their names. Raises CaseError for one that is no text."""
    return {Path(path).name: text for path, text in read_texts(Path(), case.documents).items()}


class Jury:
    """Judges of an evaluation, by name. runner: makes the votes of models; None where no judge asks one. find_texts:
    of a case's documents, by name."""

    def __init__(
        self,
        judges: Mapping[str, SeatedJudge],
        runner: Runner | None = None,
        find_texts: Callable[[EvaluationCase], Mapping[str, str]] = read_documents,
    ) -> None:
        self._judges, self._runner, self._find_texts = judges, runner, find_texts

    async def judge_answer(
        self, case: EvaluationCase, slot: RunSlot, outcome: CaseRunOutcome, budget: EvaluationBudget, record: RunRecord
    ) -> tuple[PanelVerdict, ...] | None:
        """A verdict for each judge of the case's checks; None where the money does not suffice for a vote. Raises
        CaseError for a document that cannot be read, and what the runner raises."""
        verdicts = []
        for name in dict.fromkeys(check.judge for check in case.checks if check.judge is not None):
            votes = await self._collect_votes(self._judges[name], case, slot, outcome, budget, record)
            if votes is None:
                return None
            verdicts.append(_reach_verdict(self._judges[name], votes))
        return tuple(verdicts)

    async def _collect_votes(
        self,
        seat: SeatedJudge,
        case: EvaluationCase,
        slot: RunSlot,
        outcome: CaseRunOutcome,
        budget: EvaluationBudget,
        record: RunRecord,
    ) -> list[JurorVote] | None:
        judge, answer = seat.judge, outcome.answer
        assert answer is not None
        documents = self._find_texts(case)
        if not judge.jury:
            vote = await asyncio.to_thread(judge_grounding, case.objective, documents, answer.plain_text)
            return [vote]
        material = build_material(case.objective, documents, {"answer": answer.plain_text}, case.references)
        if len(material) > bounds.MAX_OBJECTIVE_CHARS:
            reason = f"the material has {len(material):,} characters; a juror reads {bounds.MAX_OBJECTIVE_CHARS:,}"
            return [JurorVote(juror.route or "default", None, reason) for juror in judge.jury]
        assert self._runner is not None, "a judge that asks models, and no mesh"
        question = EvaluationCase(name=case.name, objective=material, checks=(Check(judge=judge.name),))
        votes = []
        for number, juror in enumerate(judge.jury):
            vote_slot = (slot[0], f"{slot[1]}~{judge.digest[:12]}~{number}", slot[2])
            voted = await make_run(
                self._runner, question, juror.route, vote_slot, budget, record, judge.limit_usd_micros
            )
            if voted is None:
                return None
            votes.append(_read_outcome(juror.route or "default", voted, outcome.models))
        return votes


def _read_outcome(juror: str, voted: CaseRunOutcome, judged: tuple[str, ...]) -> JurorVote:
    if voted.answer is None:
        return JurorVote(juror, None, f"no vote: {voted.code}", voted.models, task=voted.task)
    family = find_family(judged, voted.models)
    excluded = f"of the answer's own family, {family}: heard, and not counted" if family else ""
    return JurorVote(juror, *read_vote(voted.answer.text), voted.models, excluded, voted.task)


def _reach_verdict(seat: SeatedJudge, votes: list[JurorVote]) -> PanelVerdict:
    advice = seat.find_advice(model for vote in votes for model in vote.models)
    if not advice and all(vote.excluded for vote in votes):
        advice = "each of its jurors is of the family that wrote the answer"
    return PanelVerdict(seat.judge.name, count_votes(seat.judge, votes), tuple(votes), advice)


def build_vote_plan(judges: Mapping[str, SeatedJudge], case: EvaluationCase) -> dict[str, Any]:
    """The plan of a vote: one step without tools, whose instruction is the judge's question."""
    judge = judges[case.checks[0].judge or ""].judge
    instruction = f"Judge an answer.\n{judge.question}\n{VOTE_FORM}"
    return {"steps": [{"id": "vote", "title": "Vote", "instruction": instruction, "acceptance": ACCEPTANCE}]}
