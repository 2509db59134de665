"""Reports of a call's progress: each is greater than the one before, and a tool's own word comes first."""

from bulkhead_contracts.tool import ToolProgress
from bulkhead_services.doors.mcp.progress import ProgressReporter


class Session:
    def __init__(self) -> None:
        self.reports: list[tuple[float, float | None, str | None]] = []

    async def report_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.reports.append((progress, total, message))


async def test_a_tool_that_counts_from_one_is_told_after_the_seconds_and_grows_all_the_same():
    session = Session()
    reporter = ProgressReporter(session)
    await reporter.send_report(5.0)
    for progress in (1, 2, 9, 9):
        reporter.note_progress(ToolProgress(call_id="c", progress=progress, total=10, message=f"step {progress}"))
        await reporter.send_report(6.0)
    await reporter.send_report(11.0)
    sent = [progress for progress, _, _ in session.reports]
    assert sent == sorted(set(sent)) and [round(progress, 6) for progress in sent] == [5, 5, 5, 9, 9, 9]
    words = [message for _, _, message in session.reports]
    assert words == ["5 s", "step 1", "step 2", "step 9", "step 9", "11 s"]
    assert [total for _, total, _ in session.reports] == [None, 10, 10, 10, 10, 10]
