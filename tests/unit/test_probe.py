"""When a model is probed again: seldom enough for a slow model, soon after a failure."""

from service.adapters.probe import ProbeRecord


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_model_is_probed_again_after_ten_times_the_seconds_that_a_probe_takes() -> None:
    clock = Clock()
    record = ProbeRecord(clock)
    assert not record.fresh("image_encoder")
    record.answered("image_encoder")
    record.took("image_encoder", 25.0)
    clock.now += 249
    assert record.fresh("image_encoder")
    assert not record.fresh("prompt_decoder")
    clock.now += 2
    assert not record.fresh("image_encoder")


def test_a_failure_makes_the_next_probe_due_at_once() -> None:
    record = ProbeRecord(Clock())
    record.answered("prompt_decoder")
    assert record.fresh("prompt_decoder")
    record.failed("prompt_decoder")
    assert not record.fresh("prompt_decoder")


def test_the_first_probe_has_minutes_and_a_later_one_a_multiple_of_the_last() -> None:
    record = ProbeRecord(Clock())
    assert record.limit("image_encoder") == 120
    record.took("image_encoder", 0.1)
    assert record.limit("image_encoder") == 4
    record.took("image_encoder", 25.0)
    assert record.limit("image_encoder") == 250
