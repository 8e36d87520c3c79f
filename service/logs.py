"""Log lines, as text for eyes or as JSON for machines: each with its request's id, none with a whole URL or a key."""

import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

_URL = re.compile(r"""([A-Za-z][\w+.-]*://)(?:[^\s/?#@'"]*@)?([^\s/?#'"<>)]+)([/?#][^\s'"<>)]*)?""")
_KEY = re.compile(r"\b(bearer|basic|token|x-api-key:?)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_OWN_KEY = re.compile(r"\bovsam_[\w-]{43}")  # as `ovsam keys new` makes them
_QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds by machines
_DIGEST_DIGITS = 12  # enough to find an image's lines, too few to ask for the image
_IN_WORDS = ("method", "route", "status", "code")  # of a request's line, whose words say them
_requests = logging.getLogger("service.requests")


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request under way; its transport and the core fill it in."""

    request_id: str
    trace_id: str = ""
    method: str = ""
    route: str = "other"
    code: str = "departed"
    status: str = ""
    tenant: str = ""
    image: str = ""
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """What the log line tells besides its words; times in milliseconds."""
        told = {name: getattr(self, name) for name in ("trace_id", "method", "route", "status", "code", "tenant")}
        told["image"] = self.image.removeprefix("sha256:")[:_DIGEST_DIGITS]
        told["milliseconds"] = round(1000 * self.seconds, 1)
        told["stages"] = {name: round(1000 * seconds, 1) for name, seconds in self.stages.items()}
        return {name: value for name, value in told.items() if value or value == 0.0}


# Each request has a context of its own, and so have the tasks that it starts: nothing is shared between requests.
current_request: ContextVar[RequestRecord | None] = ContextVar("current_request", default=None)


def log_request(record: RequestRecord) -> None:
    """One line for a request that has ended; those of probes only at the level debug, unless they fail."""
    level = logging.DEBUG if record.route in _QUIET and record.code == "ok" else logging.INFO
    if _requests.isEnabledFor(level):
        words = f"{record.method} {record.route} {record.status} {record.code}".strip()
        _requests.log(level, "%s", words, extra={"request_id": record.request_id, "fields": record.fields()})


def redact(text: str) -> str:
    """The text without what follows a URL's host, user names in URLs, and keys."""
    return _OWN_KEY.sub("ovsam_...", _KEY.sub(r"\1 ...", _URL.sub(_without_path, text)))


def _without_path(url: "re.Match[str]") -> str:
    scheme, host, path = url.groups()
    return f"{scheme}{host}{'/...' if path and path != '/' else path or ''}"


class TextFormatter(logging.Formatter):
    """A line for eyes: time (UTC), level, logger, words, then what else is known as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, which stays one whatever a caller wrote into it."""
        line = super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")
        known = _fields(record)
        stages = known.pop("stages", {})
        told = [f"{name}={value}" for name, value in known.items() if name not in _IN_WORDS]
        return " ".join([line, *told, *(f"{name}={spent}ms" for name, spent in stages.items())])

    def format(self, record: logging.LogRecord) -> str:
        """The line and, below it, the trace."""
        return redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, request_id, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The request's id, also of a line that was written on its way, and what the line brought along."""
    request = current_request.get()
    request_id = getattr(record, "request_id", request.request_id if request else "")
    found: dict[str, Any] = {"request_id": request_id} if request_id else {}
    return found | getattr(record, "fields", {})


def set_up_logs(level: str, form: str = "text") -> None:
    """Send every logger's lines, uvicorn's too, to standard error in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each call of our own client, whole URL and all
