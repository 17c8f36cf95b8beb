"""kill -9 at the n-th call of each port, for n = 1, 2, 3 … until the process gets through.

Here every few calls, on the embedded default; `make soak kill` visits all of them on all kinds of addresses.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.anomaly.installation import Installation
from tests.anomaly.nursery import Nursery
from tests.anomaly.sweeping import open_copies, sweep_calls


@pytest.mark.limit(120)  # some dozen deaths, each followed by a clip
@pytest.mark.parametrize("addresses", ["local-sqlite-file"], indirect=True)
@pytest.mark.parametrize(
    ("port", "first", "stride"),
    [
        pytest.param("database", 4, 13, id="database"),
        pytest.param("bus", 2, 3, id="bus"),
        pytest.param("storage", 3, 8, id="storage"),
        pytest.param("media", 2, 2, id="media"),
    ],
)
async def test_a_death_at_any_call_of_a_port_is_not_noticed(
    installation: Installation, nursery: Nursery, port: str, first: int, stride: int
) -> None:
    async with AsyncExitStack() as stack:
        lanes = await open_copies(stack, installation, 2, name=port)
        sweep = await sweep_calls(lanes, nursery, port, first=first, stride=stride)

    assert sweep.wrong == {}
    assert sweep.deaths > 1
    assert sweep.last
