"""Attribution: where the arguments of a model's calls come from, seen by who saw both, and signed.

In: a request with its contents, and the calls that a model made of it. Out: the calls; where arguments matter, a call
bears a signed Attribution. A text counts as the requester's, a document's or a tool's where its observer signed a label
that says so for this task. A part's kind is a worker's word: any other text counts as a model's.
"""

from collections.abc import Iterator, Mapping, Sequence

from bulkhead.grants import Verifier
from bulkhead.policy.attribution import SourceText
from bulkhead.runtime.doer.attribution_process import Attributor
from bulkhead.runtime.doer.labelled_texts import read_labelled_texts, source_of_label, testified_texts
from bulkhead.runtime.doer.protocol import Job, JobContext
from bulkhead_contracts.model import ModelCallRequested, Part, ToolCall
from bulkhead_contracts.result import Label, digest_of
from bulkhead_services.model_gateway.context.render import all_parts, text_of

Texts = Mapping[str, str]
Labels = Mapping[str, Sequence[Label]]


async def attribute_calls(
    job: Job[ModelCallRequested],
    hands: JobContext,
    verifier: Verifier,
    attributor: Attributor,
    texts: Texts,
    calls: tuple[ToolCall, ...],
) -> tuple[ToolCall, ...]:
    """The calls with their attributions. texts: by digest, of what the request refers to."""
    specs = {tool.name: tool for tool in job.request.tools}
    consequential_calls = [call for call in calls if call.name in specs and specs[call.name].is_consequential]
    if not consequential_calls:
        return calls
    labels: dict[str, list[Label]] = {}
    for label in job.request.labels:
        if source_of_label(label) is not None and verifier.verify_label(label, job.tenant, job.task):
            labels.setdefault(label.sha256, []).append(label)
    # Documents and tools of the steps on which this one builds: their values come on in others' words.
    unshown_labels = [
        label
        for rows in labels.values()
        for label in rows
        if label.sha256 not in texts and source_of_label(label) != "user"
    ]
    unshown, is_complete = await read_labelled_texts(hands.blobs, job.tenant, unshown_labels)
    sources = [*_shown_texts(job.request, texts, labels), *unshown]
    attributions = await attributor.attribute_calls(
        job.tenant, consequential_calls, sources, job.authority.step, is_complete=is_complete
    )
    signed = {
        call.id: hands.signer.sign_attribution(attribution, job.tenant, job.task)
        for call, attribution in zip(consequential_calls, attributions, strict=True)
        if attribution is not None
    }
    return tuple(call.model_copy(update={"attribution": signed.get(call.id)}) for call in calls)


def _shown_texts(request: ModelCallRequested, texts: Texts, labels: Labels) -> Iterator[SourceText]:
    """The texts that the model was shown."""
    for part in all_parts(request):
        yield from _texts_of_part(part, texts, labels)
    for turn in request.turns:
        if turn.content is not None and turn.content.sha256 in texts:
            yield SourceText(texts[turn.content.sha256], "model", turn.content.sha256, "earlier turn")
        for answer in turn.answers:
            if answer.error is not None:
                text = f"{answer.error.message} {answer.error.hint}"
                yield SourceText(text, "model", digest_of(text), "error of a call")
    for tool in request.tools:
        # A server of tools wrote it, and a worker hands it on.
        yield SourceText(tool.description, "model", digest_of(tool.description), f"description of {tool.name}")


def _texts_of_part(part: Part, texts: Texts, labels: Labels) -> Iterator[SourceText]:
    if part.content is not None and part.content.sha256 not in texts:
        return
    text = text_of(part, texts)
    sha256 = part.content.sha256 if part.content is not None else digest_of(text)
    if sha256 in labels:
        yield from testified_texts(text, labels[sha256])
    else:
        yield SourceText(text, "model", sha256, part.kind)
