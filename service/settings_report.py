"""What an operator is told of the settings: which are in force, with secrets masked, and which are wrong and why."""

import difflib
import re
from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from service.settings import Settings
from service.settings_page import variable

_MASK = "***"
_SECRET_NAME = re.compile(r"(password|secret|token|api_keys?)$")
_USER_INFO = re.compile(r"(?<=://)[^/?#]*(?=@)")
_SECRET_PARAMETER = re.compile(r"([?&](?:password|username|token|key)=)[^&#]*", re.IGNORECASE)
_LIKENESS = 0.8  # of a misspelt name to a setting's; other variables may share the prefix


def report(settings: Settings) -> Iterator[str]:
    """A line `NAME=value` for each setting in force, in the order of the code."""
    for name, value in settings:
        yield f"{variable(name)}={mask(name, _text(value))}"


def mask(name: str, value: str) -> str:
    """The value as it may be shown: without passwords, also those inside URLs."""
    if _SECRET_NAME.search(name.lower()) and value:
        return _MASK
    return _SECRET_PARAMETER.sub(rf"\1{_MASK}", _USER_INFO.sub(_MASK, value))


def complaints(error: ValidationError) -> Iterator[str]:
    """A sentence for each wrong setting: which, why, and what was given."""
    for item in error.errors():
        name = "_".join(str(step) for step in item["loc"][:1])
        reason = item["msg"].removeprefix("Value error, ")
        given = "" if item["input"] is None else f" (given: {mask(name, str(item['input']))!r})"
        yield f"the setting {variable(name)} is wrong: {mask(name, reason)}{given}"


def misspelt(variables: Iterable[str]) -> Iterator[str]:
    """A sentence for each environment variable that is no setting but nearly has the name of one."""
    known = {variable(name).removeprefix("OVSAM_") for name in Settings.model_fields}
    for given in sorted(variables):
        name = given.upper().removeprefix("OVSAM_")
        if name == given.upper() or name in known:
            continue
        if like := difflib.get_close_matches(name, known, n=1, cutoff=_LIKENESS):
            yield f"{given} is no setting; is OVSAM_{like[0]} meant?"


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
