"""Settings of the checker: only those that every service has. What it decides by is data in messages, not settings."""

from bulkhead.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """See ServiceSettings."""
