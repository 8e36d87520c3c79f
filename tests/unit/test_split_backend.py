"""Which engine of a split service is asked for what, and what readiness means with one of them gone."""

import numpy as np
import pytest

from service.adapters.split_backend import ENCODER, OTHERS, SplitBackend
from service.core.errors import BackendUnavailable
from service.core.spec import MODEL_NAMES, ModelName
from service.core.types import Array, Tensors
from tests.fakes import SPEC


class Engine:
    """Notes what it was asked; fails its probe while it is dead."""

    spec = SPEC

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dead = False
        self.closed = False

    async def run(self, model: ModelName, inputs: Tensors, *, timeout: float | None = None) -> dict[str, Array]:
        self.asked.append(f"{model} within {timeout}")
        return dict(inputs)

    async def probe(self) -> None:
        if self.dead:
            raise BackendUnavailable("dead")

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def halves() -> tuple[Engine, Engine]:
    return Engine(), Engine()


async def test_each_model_is_asked_where_it_is_served(halves: tuple[Engine, Engine]) -> None:
    encoder, others = halves
    backend = SplitBackend(encoder=encoder, others=others)
    inputs = {"image": np.zeros(1, np.uint8)}
    for model in MODEL_NAMES:
        assert await backend.run(model, inputs, timeout=2.0) == inputs
    assert encoder.asked == [f"{ENCODER} within 2.0"]
    assert others.asked == [f"{model} within 2.0" for model in OTHERS]
    assert backend.spec is SPEC


async def test_it_is_not_ready_before_the_encoder_has_answered_once(halves: tuple[Engine, Engine]) -> None:
    encoder, others = halves
    backend = SplitBackend(encoder=encoder, others=others)
    encoder.dead = True
    with pytest.raises(BackendUnavailable):
        await backend.probe()
    encoder.dead = False
    await backend.probe()


async def test_once_it_was_ready_only_clicks_make_it_unready(halves: tuple[Engine, Engine]) -> None:
    """All gateways lose the encoder together: if that made them unready, no click would be answered either."""
    encoder, others = halves
    backend = SplitBackend(encoder=encoder, others=others)
    await backend.probe()
    encoder.dead = True
    await backend.probe()
    others.dead = True
    with pytest.raises(BackendUnavailable):
        await backend.probe()


async def test_both_engines_are_closed(halves: tuple[Engine, Engine]) -> None:
    await SplitBackend(encoder=halves[0], others=halves[1]).close()
    assert [half.closed for half in halves] == [True, True]
