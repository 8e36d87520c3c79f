"""The page of all settings, written from the code so that it cannot go stale: `python -m service.settings_page`."""

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from service.settings import Settings

_ROOT = Path(__file__).resolve().parent.parent
_HEAD = """\
# Settings

Written by `python -m service.settings_page > deploy/SETTINGS.md`; a test holds it against the code.
Every setting is an environment variable, read once at the start. A wrong value stops the start and is named.

| Variable | Default | Unit | Bounds | Meaning |
|---|---|---|---|---|
"""
_UNITS = {"_mib": "MiB", "_seconds": "s", "megapixels": "megapixels", "port": "port", "_url": "address"}
_UNITS |= {"_cert": "path", "_key": "path", "_ca": "path", "_file": "path"}
_KINDS = {bool: "true, false", int: "count", float: "number", Path: "path", str: "text"}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"{Settings.model_config['env_prefix']}{name}".upper()


def render_page() -> str:
    """The page in Markdown, a row for each field in the order of the code."""
    return _HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{variable(name)}`", _default(field), _unit(name, field), _bounds(field), field.description or "")
    return f"| {' | '.join(cells)} |\n"


def _default(field: FieldInfo) -> str:
    default = field.get_default()
    if default is None:
        return "empty"
    if isinstance(default, Path) and default.is_relative_to(_ROOT):
        return f"`{default.relative_to(_ROOT)}` beside the package"  # where the code lies differs between machines
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`" if str(default) else "empty"


def _unit(name: str, field: FieldInfo) -> str:
    by_name = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), None)
    return by_name or next((word for kind, word in _KINDS.items() if field.annotation is kind), "text")


def _bounds(field: FieldInfo) -> str:
    limits = ((sign, getattr(item, key, None)) for item in field.metadata for key, sign in _BOUNDS.items())
    return ", ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None)


if __name__ == "__main__":
    sys.stdout.write(render_page())
