"""A start that fails: it says which setting to look at, and leaves no key that nobody was shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from shared.kernel.errors import Refused, SpoolError, Unavailable
from shared.runtime.api_key import key_file
from shared.settings.settings import load_settings
from spool.serving import SERVICES, serve


@pytest.mark.parametrize(
    ("variable", "address", "error"),
    [
        pytest.param("bus", "amqp://127.0.0.1:1/", Unavailable, id="nobody-listens"),
        pytest.param("database", "postgresql://127.0.0.1:1/spool", Unavailable, id="no-database"),
        pytest.param("storage", "s3://bucket?endpont=http://127.0.0.1:1", Refused, id="misspelt-option"),
        pytest.param("storage", "file:relative", Refused, id="relative-path"),
    ],
)
async def test_a_start_that_fails_names_the_setting_and_keeps_no_unseen_key(
    tmp_path: Path, variable: str, address: str, error: type[SpoolError]
) -> None:
    settings = load_settings(data_directory=tmp_path / "data", http_port=0, **{variable: address})

    with pytest.raises(error, match=f"^SPOOL_{variable.upper()}: "):
        await serve(settings, services=SERVICES)

    assert not key_file(settings.data_directory).exists()


async def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Refused, match=r"^SPOOL_DATA_DIRECTORY: .*File exists"):
        await serve(load_settings(data_directory=tmp_path / "file"), services=SERVICES)


async def test_the_data_directory_is_its_owners_alone(tmp_path: Path) -> None:
    settings = load_settings(data_directory=tmp_path / "data", http_port=0, bus="amqp://127.0.0.1:1/")

    with pytest.raises(Unavailable):
        await serve(settings, services=SERVICES)

    assert stat.S_IMODE(settings.data_directory.stat().st_mode) == 0o700
