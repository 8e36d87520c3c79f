"""Stages: told as they end, also when they fail, with the wait in a queue apart."""

import time

import pytest

from service.core.timing import Timing
from tests.fakes import RecordingObserver


def test_a_stage_that_fails_is_told_with_what_it_took() -> None:
    observer = RecordingObserver()
    timing = Timing(observer)
    with pytest.raises(ValueError, match="broken"), timing.stage("encode"):
        raise ValueError("broken")
    assert observer.counts == {"stage:encode": 1}
    assert timing.stages["encode"] > 0


def test_waiting_is_not_the_work_after_it() -> None:
    timing = Timing(RecordingObserver())
    started = time.perf_counter()
    with timing.stage("decode"):
        time.sleep(0.05)
        timing.waited(0.04)
    with timing.stage("render"):
        pass
    assert timing.stages["queue"] == 0.04
    assert timing.stages["decode"] + timing.stages["queue"] <= time.perf_counter() - started
    assert list(timing.stages) == ["decode", "queue", "render"]
