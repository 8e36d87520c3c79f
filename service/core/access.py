"""Who asks, and how often it may."""

from dataclasses import dataclass

PUBLIC = "public"  # the tenant of everybody while no API keys are set


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` requests in the long run, `burst` of them at once."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request's API key stands for; `key` names the key without telling it, `rate` is its own where it has one.

    The tenant becomes a part of every key under which something is kept.
    """

    tenant: str
    key: str = ""
    rate: Rate | None = None
