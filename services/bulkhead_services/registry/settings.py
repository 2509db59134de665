"""Knobs of registry. Enters: the environment (BULKHEAD_*). Leaves: one checked value."""

from pathlib import Path

from pydantic import Field

from bulkhead.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """packs: as the model gateway has them: prompts that come with them can be changed too. max_age_ms: how old the
    signer's word on an act may be, and by how much the clocks may differ. canary_tasks: least tasks of a canary
    before it is proposed to promote it. tenants_file: with the gates before labels, read again when it changes."""

    packs: tuple[str, ...] = ()
    canary_tasks: int = Field(default=200, ge=1)
    tenants_file: Path
    max_age_ms: int = Field(default=600_000, ge=1_000)
