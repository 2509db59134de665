"""Sources of the values of a call that a plan makes: without a model nobody else has seen where they come from.

In: a call whose request names the plan's call, with labels. Out: its attribution, or None where the arguments are not
the plan's. Nothing here believes the worker: labels are verified, and contents read under the names that they sign. A
value that stands in none of them counts as a model's. What a reference brought is nobody's word for also standing in
the plan: only its literals are the asker's.
"""

from bulkhead.flow.step_calls import follows_call, list_references
from bulkhead.policy.attribution import UNKNOWN_SOURCE, SourceText
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.attribution_process import Attributor
from bulkhead.runtime.doer.labelled_texts import read_labelled_texts, source_of_label
from bulkhead.runtime.doer.protocol import Job
from bulkhead.tools.api import Arguments
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.plan import PLAN_CALL_SOURCE, planned_ids
from bulkhead_contracts.provenance import Attribution, ValueOrigin
from bulkhead_contracts.result import digest_of
from bulkhead_contracts.tool import ToolCallRequested

OBSERVER = "tool_executor"


async def attribute_plan_call(
    job: Job[ToolCallRequested], arguments: Arguments, context: Context, attributor: Attributor
) -> Attribution | None:
    """The attribution of a call that follows the one its request names; literals are a person's where his label covers
    that call in this step."""
    request, step, basis = job.request, job.authority.step, job.request.basis
    if basis is None or step is None or basis.call.tool != request.tool or not follows_call(basis.call, arguments):
        return None
    labels = [
        label
        for label in basis.labels
        if source_of_label(label) is not None and context.verifier.verify_label(label, job.tenant, job.task)
    ]
    sources, is_complete = await read_labelled_texts(
        context.blobs, job.tenant, [label for label in labels if source_of_label(label) != "user"]
    )
    own_digests = {
        f"{PLAN_CALL_SOURCE}{name}": digest_of(basis.call.text_in(name)) for name in planned_ids(step.step_id)
    }
    covering = (row for row in labels if source_of_label(row) == "user" and own_digests.get(row.source) == row.sha256)
    sources += [SourceText(basis.call.arguments_json, "user", label.sha256, "the plan") for label in covering]
    call = ToolCall(id=request.call_id[:64], name=request.tool, arguments_json=request.arguments_json)
    (attribution,) = await attributor.attribute_calls(job.tenant, [call], sources, step, is_complete=is_complete)
    if attribution is None:
        return None
    referring_places = [reference.argument for reference in list_references(basis.call)]
    # Sources that the worker kept back are not known, and what stands in no text may come from anywhere.
    unknown = {UNKNOWN_SOURCE} if referring_places else set()
    changes = {"shown": tuple(sorted(unknown.union(attribution.shown))), "least": "model", "observed_by": OBSERVER}
    values = tuple(
        _without_user(value)
        if any(f"{value.pointer}/".startswith(f"{place}/") for place in referring_places)
        else value
        for value in attribution.values
    )
    return attribution.model_copy(update=changes | {"values": values})


def _without_user(value: ValueOrigin) -> ValueOrigin:
    origins = tuple(origin for origin in value.origins if origin.source != "user")
    return value.model_copy(update={"origins": origins})
