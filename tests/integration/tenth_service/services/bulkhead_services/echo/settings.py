"""Settings of echo. In: the environment (BULKHEAD_*). Out: one checked value."""

from bulkhead.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """echo_prefix: stands before each text that is given back."""

    echo_prefix: str = ""
