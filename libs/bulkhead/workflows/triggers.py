"""Triggers of workflows: which events from outside begin a run, and with which values. Pure.

In: a trigger, an event. Out: values by parameter, as text; or the reason why there are none.
"""

import json

from bulkhead.flow import bounded
from bulkhead.flow.step_calls import UnresolvedReference, find_field
from bulkhead_contracts import bounds
from bulkhead_contracts.outside_event import EventPublished
from bulkhead_contracts.workflow import WorkflowTrigger


def describe_trigger_misfit(trigger: WorkflowTrigger) -> str:
    """Reason for which this is no trigger; "" when it is one."""
    if twice := sorted(trigger.parameters.keys() & trigger.fields.keys()):
        return f"{', '.join(twice)} has a value and a field of the event, and needs one of them"
    if (size := len(trigger.model_dump_json().encode())) > bounds.MAX_SCHEDULE_BYTES:
        return f"the trigger takes {size:,} bytes with its values, of {bounds.MAX_SCHEDULE_BYTES:,}"
    return ""


def is_triggered(trigger: WorkflowTrigger, event: EventPublished, source: str) -> bool:
    """True when the event of this source begins a run."""
    return trigger.event == event.name and trigger.key in ("", event.key) and source in trigger.sources


def read_trigger_values(trigger: WorkflowTrigger, body_json: str) -> dict[str, str]:
    """The values of a run that the event begins. Raises ValueError for a body that lacks one."""
    body, values = bounded.load_json(body_json), dict(trigger.parameters)
    for name, pointer in trigger.fields.items():
        try:
            value = find_field(body, pointer)
        except UnresolvedReference as error:
            raise ValueError(f"{name}: {error}") from error
        if not isinstance(value, (str, int, float)):
            raise ValueError(f"{name}: {pointer or 'the body'} is no text, number or boolean")
        values[name] = value if isinstance(value, str) else json.dumps(value)
    return values
