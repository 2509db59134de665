"""What the figures are to be, in power mode: "at first" (a release must have it) and "then" (where it goes).

Absolute values are of the machine of docs/explanation/benchmarks.md (2 cores); on another machine read the ratios.
"""

Target = tuple[float, float]

TARGETS: dict[str, Target] = {
    "step_p50_ms": (2.0, 1.15),
    "step_p99_ms": (8.0, 2.4),
    "steps_per_s": (1_000, 2_000),
    "cpu_per_step_ms": (1.5, 0.68),
    "task3_p50_ms": (10.0, 5.6),
    **{f"planner_cpu_growth_{shape}_1000": (1.3, 1.2) for shape in ("chain", "fan", "map")},
    "recovery_s": (3.0, 2.4),
    "rerun_recorded_steps": (0, 0),
    "pss_total_mb": (250, 127),
    "one_agent_task_p50_ms": (40, 25),
    "full_step_durable_writes": (16, 14),
    "flood_latency_ratio": (1.5, 1.1),
    "admission_p50_ms": (2.0, 2.0),
    "admissions_per_s": (3_000, 3_000),
    "door_first_token_overhead_p50_ms": (5.0, 5.0),
    "door_calls_per_s": (300, 300),
    "boundary_p50_ms": (3.0, 1.0),
    "boundary_calls_per_s": (1_000, 1_000),
}
KINDS = ("", "_check", "_judged", "_traced")
BETTER_HIGH = frozenset(
    {
        "steps_per_s",
        "full_steps_per_s",
        "admissions_per_s",
        "boundary_calls_per_s",
        "direct_calls_per_s",
        "door_calls_per_s",
        "admissions_per_s_1",
        "admissions_per_s_2",
        *(f"steps_per_s_{count}{kind}" for count in (50, 200) for kind in KINDS),
    }
)
"""Of every other measure less is better."""
