"""An operator's drill: the whole stack under load, its parts killed one after the other, the real alerts watched.

    python deploy/drill/drill.py --folder build/drill

Redis, Triton and a gateway are killed as a crash would, and the stack starts them again. A real Prometheus reads them
by the committed configuration and rules; only times are shortened, expressions stay. The drill fails unless the alerts
that should fire do, every click is answered in the end, and all is well again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from asking import DrillFailed, wait_for
from load import Load
from victims import ROOT, Stack
from watching import Alerts, configure, prometheus

BLOWS = {  # what each must ring, besides whatever else it rings
    "redis": ("OvsamRedisFaults",),
    "triton": ("OvsamTritonDown", "OvsamBackendUnavailable", "OvsamFailureRatio"),
    "gateway": ("OvsamGatewayDown",),
}
NEVER = {"OvsamInternalErrors", "OvsamCorruptEmbeddings"}
GONE = {"OvsamTritonDown", "OvsamGatewayDown"}  # end with the fault; others look back over minutes


def drill(folder: Path, *, first_port: int, clients: int = 2) -> dict[str, Any]:
    """Run all of it; the report says what rang after how many seconds, and when all was well again."""
    folder.mkdir(parents=True, exist_ok=True)
    stack = Stack(folder, first_port)
    load = Load(stack.gateways)
    report: dict[str, Any] = {}
    try:
        stack.await_ready()
        configuration = configure(folder, gateways=stack.gateways, triton=stack.triton + 2)
        with prometheus(folder, first_port + 30, configuration) as alerts, load.running(clients):
            wait_for("the load is answered", lambda: load.answered > 2 * clients)
            for victim, wanted in BLOWS.items():
                report[victim] = _strike(stack, alerts, victim, set(wanted))
            before = load.answered
            wait_for("the load is answered again", lambda: load.answered > before + clients)
            report["rang"] = sorted(alerts.fired())
    finally:
        stack.stop()
    if load.lost or NEVER & set(report["rang"]):
        raise DrillFailed(f"lost: {load.lost}; rang: {report['rang']}")
    return report | {"answered": load.answered, "sent again": load.retried}


def _strike(stack: Stack, alerts: Alerts, victim: str, wanted: set[str]) -> dict[str, Any]:
    """What one blow rang, and after how many seconds; `before` it rings only what looks back over minutes."""
    wait_for(f"{victim}: all is well before the blow", lambda: not GONE & alerts.firing())
    before, rang = alerts.firing(), set[str]()

    def all_ring() -> bool:
        stack.kill(victim)  # as often as it is started: a fast machine has it back before anything rings
        rang.update(alerts.firing())
        return wanted <= rang

    seconds = wait_for(f"{victim}: {sorted(wanted)} ring", all_ring)
    well = wait_for(f"{victim}: all is well again", lambda: stack.well() and not GONE & alerts.firing())
    return {"before": sorted(before), "rang after": round(seconds, 1), "well after": round(seconds + well, 1)}


def main() -> int:
    """Print the report; the exit code is 1 when the drill failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "drill", help="logs and series")
    parser.add_argument("--port", type=int, default=8700, help="first of 31 ports")
    options = parser.parse_args()
    try:
        print(json.dumps(drill(options.folder, first_port=options.port), indent=2))
    except DrillFailed as error:
        print(f"drill: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
