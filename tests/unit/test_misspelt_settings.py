"""A variable that nobody reads is told at start, with the name that was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

import services.clipper.settings  # noqa: F401  # a group of settings exists once it is imported
from shared.settings.misspelt import misspelt_variables, unknown_in

KNOWN = {"SPOOL_HTTP_PORT", "SPOOL_STORAGE", "SPOOL_CLIPPER_HANDS"}


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        pytest.param("SPOOL_STORRAGE", "file:///x", "SPOOL_STORAGE", id="a-letter-too-many"),
        pytest.param("SPOOL_CLIPER_HANDS", "4", "SPOOL_CLIPPER_HANDS", id="a-letter-missing"),
        pytest.param("spool_storrage", "x", "SPOOL_STORAGE", id="in-small-letters"),
        pytest.param("SPOOL_PORT", "8080", "SPOOL_HTTP_PORT", id="half-a-name"),
        pytest.param("SPOOL_WEATHER", "rain", None, id="nothing-near"),
    ],
)
def test_what_nobody_reads_is_told_with_what_was_meant(name: str, value: str, nearest: str | None) -> None:
    assert unknown_in({name: value}, known=KNOWN) == {name: nearest}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("SPOOL_STORAGE", "x", id="known"),
        pytest.param("spool_storage", "x", id="known-in-small-letters"),
        pytest.param("SPOOL_TEST_S3", "x", id="of-the-tests"),
        pytest.param("SPOOL_CI_CACHE", "x", id="of-what-runs-them"),
        pytest.param("PATH", "/bin", id="not-ours"),
        pytest.param("SPOOL_PORT", "tcp://10.0.0.1:8080", id="kubernetes-port"),
        pytest.param("SPOOL_PORT_8080_TCP", "tcp://10.0.0.1:8080", id="kubernetes-tcp"),
        pytest.param("SPOOL_PORT_8080_TCP_ADDR", "10.0.0.1", id="kubernetes-address"),
        pytest.param("SPOOL_SERVICE_HOST", "10.0.0.1", id="kubernetes-host"),
        pytest.param("SPOOL_CLIPPER_SERVICE_PORT_HTTP", "8080", id="kubernetes-named-port"),
    ],
)
def test_what_others_set_is_passed_over(name: str, value: str) -> None:
    assert unknown_in({name: value}, known=KNOWN) == {}


def test_every_setting_of_every_group_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("SPOOL_LOG_LEVLE=debug\nSPOOL_BUS=local:\n")
    monkeypatch.setenv("SPOOL_CLIPPER_ATTEMPTS", "3")
    monkeypatch.setenv("SPOOL_CLIPPER_ATTEMTS", "3")
    found = misspelt_variables()

    assert found["SPOOL_LOG_LEVLE"] == "SPOOL_LOG_LEVEL"
    assert found["SPOOL_CLIPPER_ATTEMTS"] == "SPOOL_CLIPPER_ATTEMPTS"
    assert "SPOOL_CLIPPER_ATTEMPTS" not in found
    assert "SPOOL_BUS" not in found
