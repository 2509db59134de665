"""Times of schedules: the last run up to an instant, and the next ones, in the schedule's own zone. Pure; cron
by cronsim.

In: a schedule, an instant. Out: an instant, or the reason why the schedule has none.
"""

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from bulkhead_contracts import bounds
from bulkhead_contracts.workflow import WorkflowSchedule

LEAST_MINUTES = 5
"""Between two runs."""
TIMES_LOOKED_AT = 1_500
"""More than a day has, at that distance."""


def describe_schedule_misfit(schedule: WorkflowSchedule) -> str:
    """Reason for which this is no schedule; "" when it is one."""
    if len(schedule.cron.split()) != 5:
        return f"the schedule {schedule.cron!r} has not five fields: minute, hour, day, month, weekday"
    if (size := len(schedule.model_dump_json().encode())) > bounds.MAX_SCHEDULE_BYTES:
        return f"the schedule takes {size:,} bytes with its values, of {bounds.MAX_SCHEDULE_BYTES:,}"
    try:
        zone = ZoneInfo(schedule.zone)
    except (KeyError, ValueError, OSError):
        return f"no time zone is called {schedule.zone!r}"
    try:
        times = CronSim(schedule.cron, datetime(2026, 1, 1, tzinfo=zone))
        # In UTC: the clocks of a zone go back within an hour.
        runs = [run.astimezone(UTC) for run in islice(times, TIMES_LOOKED_AT)]
    except CronSimError as error:
        return f"the schedule {schedule.cron!r} has no times: {error}"
    if not runs:
        return f"the schedule {schedule.cron!r} has no times: none in 50 years"
    if any((later - run).total_seconds() < LEAST_MINUTES * 60 for run, later in pairwise(runs)):
        return f"the schedule {schedule.cron!r} runs more often than every {LEAST_MINUTES} minutes"
    return ""


def previous_run(schedule: WorkflowSchedule, now_unix_ms: int) -> int:
    """The last instant up to this one, in Unix ms; 0 where there was none."""
    # Cron knows whole minutes, and looks for what lies before the one that is given.
    minute = now_unix_ms // 60_000 + 1
    before = datetime.fromtimestamp(minute * 60, UTC).astimezone(ZoneInfo(schedule.zone))
    last = next(CronSim(schedule.cron, before, reverse=True), None)
    return round(last.timestamp() * 1000) if last is not None else 0


def next_runs(schedule: WorkflowSchedule, now_unix_ms: int, count: int) -> tuple[datetime, ...]:
    """The next instants after this one, in the schedule's zone."""
    now = datetime.fromtimestamp(now_unix_ms / 1000, UTC).astimezone(ZoneInfo(schedule.zone))
    return tuple(islice(CronSim(schedule.cron, now), count))
