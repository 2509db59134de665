"""Push notification configs of A2A, and those of the gateway. In: a client's config. Out: the gateway's, and back.

The gateway keeps them beside the task and has them posted; nothing of them stays here.
"""

import re
from collections.abc import Mapping
from typing import Any

from a2a.types import TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError, PushNotificationNotSupportedError, TaskNotFoundError

from bulkhead.a2a.push_urls import PushUrlForbidden, parse_push_url
from bulkhead.client.errors import Refused
from bulkhead.client.task import Task
from bulkhead_contracts import bounds
from bulkhead_contracts.push import CONFIG_ID
from bulkhead_contracts.push_policy import PushPolicy

_TOKEN = re.compile(r"[!-~]*")


def require_push(policy: PushPolicy) -> None:
    """Raises PushNotificationNotSupportedError where the tenant has no push notifications."""
    if not policy.is_enabled:
        raise PushNotificationNotSupportedError(
            "there are no push notifications for your tenant; stream, or ask for the task"
        )


def check_config(config: TaskPushNotificationConfig, policy: PushPolicy) -> None:
    """Check what every config must have, before anything is begun. Raises A2AError."""
    require_push(policy)
    if config.HasField("authentication") and (config.authentication.scheme or config.authentication.credentials):
        problem = "authentication is not taken: this agent has no safe place for a receiver's credentials"
        raise InvalidParamsError(f"{problem}; send a token, which comes with each post in X-A2A-Notification-Token")
    if config.id and not re.fullmatch(CONFIG_ID, config.id):
        raise InvalidParamsError("the config's id must have 1 to 64 of A-Z a-z 0-9 _ . -; send a UUID, or none")
    if len(config.token) > bounds.MAX_PUSH_TOKEN_CHARS or not _TOKEN.fullmatch(config.token):
        most = bounds.MAX_PUSH_TOKEN_CHARS
        raise InvalidParamsError(f"token must have at most {most} visible ASCII characters, as it becomes a header")
    try:
        parse_push_url(config.url, policy)
    except PushUrlForbidden as error:
        raise InvalidParamsError(f"{error}; the operator names the allowed hosts (`push` of the tenant)") from error


async def store_config(task: Task, config: TaskPushNotificationConfig, form: str) -> TaskPushNotificationConfig:
    """Store it. Without an id it is the task's only one without. Raises Refused."""
    return config_from_row(await task.set_push(config.id or task.id, config.url, config.token, form))


async def read_config(task: Task, name: str) -> TaskPushNotificationConfig:
    """One of a task. Raises TaskNotFoundError, Refused."""
    _check_id(name or task.id)
    try:
        return config_from_row(await task.push_config(name or task.id))
    except Refused as error:
        if error.status == 404:
            raise TaskNotFoundError(f"{error}; list the configs of the task") from error
        raise


async def delete_config(task: Task, name: str) -> None:
    """Delete it; one that is not there is deleted already. Raises TaskNotFoundError, Refused."""
    _check_id(name or task.id)
    await task.delete_push(name or task.id)


def config_from_row(row: Mapping[str, Any]) -> TaskPushNotificationConfig:
    """A config as A2A shows it."""
    return TaskPushNotificationConfig(task_id=row["task_id"], id=row["config_id"], url=row["url"], token=row["token"])


def _check_id(name: str) -> None:
    if not re.fullmatch(CONFIG_ID, name):
        raise TaskNotFoundError("no config has such an id; list the configs of the task")
