"""The command `ovsam keys`: make an API key, which is shown once, and the line that stands for it in the key file."""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from service.adapters.keys import line_of, new_key
from service.settings import Settings

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name


def register(commands: Commands) -> None:
    """Add it to the console command."""
    keys = commands.add_parser("keys", help="make API keys")
    verbs = keys.add_subparsers(required=True, metavar="VERB")
    new = verbs.add_parser("new", help="make a key; adding its line to OVSAM_API_KEYS_FILE is what lets it in")
    new.add_argument("tenant", metavar="TENANT", help="whom it stands for: a-z, 0-9, dot, dash, underscore")
    new.add_argument("--rate", type=float, help="requests a second (default: the tenant shares OVSAM_RATE_PER_SECOND)")
    new.add_argument("--burst", type=int, help="requests at once (default: those of a second)")
    new.add_argument("--days", type=int, help="days until it ends (default: never)")
    new.set_defaults(run=_new)


def _new(options: argparse.Namespace, _: Settings) -> int:
    """The key goes to standard error and its line to standard output, so that `>> FILE` does what is wanted."""
    expires = datetime.now(UTC) + timedelta(days=options.days) if options.days is not None else None
    key = new_key()
    line = line_of(key, tenant=options.tenant, rate=options.rate, burst=options.burst, expires=expires)
    sys.stderr.write(f"the key, which is shown this once:\n\n    {key}\n\nits line for OVSAM_API_KEYS_FILE:\n\n")
    sys.stdout.write(f"{line}\n")
    return 0
