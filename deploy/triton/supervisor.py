"""Keeps a server answering: probes each model, reloads one that is dead, restarts a server that is beyond that."""

import logging
import time
from dataclasses import dataclass, field

from control import Control, ControlError
from server import TritonServer

log = logging.getLogger("triton")

FIRST_ATTEMPTS = 3
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between restarts, doubled each time
PATIENCE = 10  # a probe may take this many times as long as the first one, which met an idle server
BROKEN_SERVER_GRACE = 1.0  # seconds: a server with a dead stub blocks its whole exit timeout
START_POLL = 0.2


class StartFailed(Exception):
    """The first start failed: a fault of repository or ports, which no restart would mend."""


@dataclass(frozen=True, slots=True)
class ProbePolicy:
    """How often models are probed (seconds), and after how many failures in a row something is done."""

    interval: float = 2.0
    timeout: float = 5.0
    failures: int = 3
    start_timeout: float = 300.0


@dataclass(slots=True)
class Supervisor:
    """Runs one server until it is interrupted."""

    server: TritonServer
    control: Control
    policy: ProbePolicy
    _failures: dict[str, int] = field(default_factory=dict, init=False)
    _counts: dict[str, int] = field(default_factory=dict, init=False)
    _timeouts: dict[str, float] = field(default_factory=dict, init=False)

    def run(self) -> None:
        """Raise StartFailed, or end by KeyboardInterrupt; the server is gone in either case."""
        try:
            self._start_first()
            self._announce()
            while True:
                if (code := self.server.wait(self.policy.interval)) is not None:
                    log.error("the server ended with code %d", code)
                    self._restart()
                elif dead := self._dead_models():
                    self._recover(dead)
        finally:
            self.server.stop(grace=self.server.options.exit_timeout)

    def _start_first(self) -> None:
        """Give up on a fault of repository or ports at once, on crashes (stubs starved of CPU cause them) later."""
        for attempt in range(1, FIRST_ATTEMPTS + 1):
            fault = self._start()
            if not fault:
                return
            if attempt == FIRST_ATTEMPTS or not self.server.crashed:
                raise StartFailed(fault)
            log.error("%s; trying again", fault)
            self.server.stop(grace=BROKEN_SERVER_GRACE)

    def _start(self) -> str:
        """Start the server and wait until each model that loaded has answered a probe; return what went wrong."""
        self._failures, self._counts, self._timeouts = {}, {}, {}
        self.server.start()
        deadline = time.monotonic() + self.policy.start_timeout
        fault = "no answer"
        while time.monotonic() < deadline:
            if (code := self.server.wait(START_POLL)) is not None:
                return f"the server ended with code {code}, its own messages are above"
            try:
                states = self._models()
                self._timeouts = {model: self._measured_timeout(model) for model, state in states.items() if not state}
            except ControlError as error:
                fault = str(error)
                continue
            refused = [f"'{model}' was refused: {state}" for model, state in states.items() if state]
            return "; ".join(refused) if states else "the repository holds no model"
        return f"not ready within {self.policy.start_timeout:.0f} s: {fault}"

    def _models(self) -> dict[str, str]:
        """The models that are to be served: the server lists all of the repository."""
        wanted = self.server.options.models
        return {name: state for name, state in self.control.models().items() if not wanted or name in wanted}

    def _measured_timeout(self, model: str) -> float:
        """Fit the probe's timeout to the model: a large encoder takes seconds on a CPU."""
        started = time.monotonic()
        self.control.probe(model, timeout=self.policy.start_timeout)
        return max(self.policy.timeout, PATIENCE * (time.monotonic() - started))

    def _announce(self) -> None:
        options = self.server.options
        ports = f"grpc {options.address}:{options.grpc_port}, http {options.address}:{options.http_port}"
        log.info("ready: %s, metrics %s:%d", ports, options.address, options.metrics_port)
        log.info("models: %s", ", ".join(self._timeouts))

    def _restart(self) -> None:
        """Start anew until at least one model answers; one that was broken meanwhile must not take the others down."""
        pause = FIRST_PAUSE
        while True:
            self.server.stop(grace=BROKEN_SERVER_GRACE)
            fault = self._start()
            if fault:
                log.error("%s", fault)
            if self._timeouts:
                self._announce()
                return
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _dead_models(self) -> list[str]:
        """Name the models that failed often enough in a row; "" stands for a server that does not answer at all."""
        try:
            models = [model for model, state in self._models().items() if not state]
            faults = {model: self._fault(model) for model in models}
        except ControlError as error:
            faults = {"": str(error)}
        self._failures = {model: self._failures.get(model, 0) + 1 for model, fault in faults.items() if fault}
        for model, failures in self._failures.items():
            log.warning("probe %d of '%s' failed: %s", failures, model, faults[model])
        return [model for model, failures in self._failures.items() if failures >= self.policy.failures]

    def _fault(self, model: str) -> str:
        """Say what is wrong; nothing if the model answers, or computes for others while the probe waits its turn."""
        if self._progressed(model):
            return ""
        fault = ""
        try:
            self.control.probe(model, timeout=self._timeouts.get(model, self.policy.timeout))
        except ControlError as error:
            fault = str(error)
        return "" if self._progressed(model) else fault

    def _progressed(self, model: str) -> bool:
        """Whether the model has computed anything since this was last asked."""
        count = self.control.inference_count(model)
        previous = self._counts.get(model, count)
        self._counts[model] = count
        return count > previous

    def _recover(self, models: list[str]) -> None:
        """Reload the dead models; restart the server when it is silent or that does not bring them back."""
        if "" in models:
            log.error("no answer from the server, restarting it")
            self._restart()
            return
        try:
            for model in models:
                log.error("reloading '%s'", model)
                self._unload(model)
                self.control.load(model, timeout=self.policy.start_timeout)
                self._timeouts[model] = self._measured_timeout(model)
                del self._failures[model]
                log.info("'%s' answers again", model)
        except ControlError as error:
            log.error("restarting the server: %s", error)  # noqa: TRY400 - a message for the operator
            self._restart()

    def _unload(self, model: str) -> None:
        """End a model and wait for it: a load that overtakes the unload keeps the dead process."""
        self.control.unload(model, timeout=self.policy.timeout)
        deadline = time.monotonic() + self.policy.start_timeout
        while not self.control.models().get(model, "gone"):
            if time.monotonic() > deadline:
                raise ControlError(f"'{model}' does not end")
            time.sleep(START_POLL)
