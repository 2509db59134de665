"""Versions of prompts by the release of a task's grant. In: tenant, release, prompt. Out: the text, or None.

Releases and versions never change, so each is read once.
"""

import asyncio
from typing import TypeVar

from pydantic import ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.prompts.files import PromptText
from bulkhead_contracts import prompt, subjects

PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Between looks for what must be there."""
MAX_KNOWN = 128
"""Releases, and versions, that are kept in memory; a version has 32 KiB at most."""


M = TypeVar("M", prompt.PromptRelease, prompt.PromptVersion)


class ReleaseMissing(Exception):
    """A release or version that a grant names is not there, or is not the one that was released."""


class ReleasedPrompts:
    """Versions of all tenants."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._releases = BoundedDict[tuple[str, str], prompt.PromptRelease](MAX_KNOWN)
        self._versions = BoundedDict[tuple[str, str, int], prompt.PromptVersion](MAX_KNOWN)

    async def find_version(self, tenant: str, ref: str, prompt_id: str) -> PromptText | None:
        """The tenant's version of a prompt, filled with its values; None where the release has the shipped one.
        Raises ReleaseMissing, BusError."""
        if not ref:
            return None
        release = await self._read_release(tenant, ref)
        row = release.prompts_for(ref).get(prompt_id)
        if row is None:
            return None
        version = await self._read_version(tenant, row)
        return PromptText(
            version.prompt,
            version.number,
            version.note,
            version.owner,
            version.content.fill_variables(row.values).strip() + "\n",
            version.sha256,
            released=version.content,
        )

    async def _read_release(self, tenant: str, ref: str) -> prompt.PromptRelease:
        label, number, *_ = ref.split(".")
        release = self._releases.get_refreshed((tenant, f"{label}.{number}"))
        if release is None:
            stored = await self._read_stored(
                subjects.release_subject(tenant, label, number), f"release {label} {number}"
            )
            release = _parse_stored(prompt.PromptRelease, stored)
            self._releases[tenant, release.ref] = release
        return release

    async def _read_version(self, tenant: str, row: prompt.ReleasedPrompt) -> prompt.PromptVersion:
        key = tenant, row.prompt, row.number
        version = self._versions.get_refreshed(key)
        if version is None:
            name = prompt.version_name(row.prompt, row.number)
            stored = await self._read_stored(subjects.prompt_version_subject(*key), name)
            version = _parse_stored(prompt.PromptVersion, stored)
            if version.content.sha256 != row.sha256:
                raise ReleaseMissing(f"prompt {name} is not the one that was released: its digest differs")
            self._versions[key] = version
        return version

    async def _read_stored(self, subject: str, name: str) -> StoredMessage:
        # A replica of the store may be behind what the signer has seen already.
        for pause_s in (*PAUSES_S, None):
            stored = await self._bus.last(subjects.PROMPTS_STREAM, subject)
            if stored is not None:
                return stored
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        raise ReleaseMissing(f"{name} is not stored")


def _parse_stored(model: type[M], stored: StoredMessage) -> M:
    try:
        return model.model_validate_json(stored.body)
    except ValidationError as error:
        raise ReleaseMissing(f"{stored.subject} cannot be read: it is of a newer version of the mesh") from error
