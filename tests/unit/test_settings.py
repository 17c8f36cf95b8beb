"""Settings: from the environment or `.env`; a wrong one is named with what is wrong and an example."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.clipper.settings import ClipperSettings
from shared.settings.settings import Environment, Settings, SettingsError, TraceSettings, load, load_settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("SPOOL_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_with_nothing_set_everything_lives_in_one_directory(tmp_path: Path) -> None:
    settings = load_settings()

    assert settings.bus == "local:"
    assert settings.embedded
    assert settings.storage_address == f"file://{tmp_path}/spool-data/media"
    assert settings.database_address == f"sqlite:///{tmp_path}/spool-data/spool.db"
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8080)


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "SPOOL_HTTP_PORT=1\nSPOOL_LOG_LEVEL=debug\nSPOOL_LOG_FORMAT=text\nOTHER=1\n"
    )
    monkeypatch.setenv("SPOOL_HTTP_PORT", "2")
    monkeypatch.setenv("SPOOL_LOG_LEVEL", "error")

    settings = load_settings(http_port=3)

    assert (settings.http_port, settings.log_level, settings.log_format) == (3, "error", "text")


@pytest.mark.parametrize(
    ("bus", "database", "embedded"),
    [
        ("local:", "postgresql://db/spool", True),
        ("amqp://mq/", "sqlite:///spool.db", True),
        ("amqp://mq/", None, True),
        ("amqps://mq/", "postgresql://db/spool", False),
    ],
)
def test_a_process_owns_its_directory_when_something_of_it_lives_there(
    bus: str, database: str | None, embedded: bool
) -> None:
    assert load_settings(bus=bus, database=database).embedded is embedded


@pytest.mark.parametrize(
    ("group", "variable", "value", "words"),
    [
        (TraceSettings, "OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http:, https:"),
        (TraceSettings, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "names no host"),
        (Settings, "SPOOL_BUS", "", "local:, amqp:, amqps:"),
        (Settings, "SPOOL_BUS", "kafka://a", "local:, amqp:, amqps:"),
        (Settings, "SPOOL_BUS", "local", "local:, amqp:, amqps:"),
        (Settings, "SPOOL_BUS", "local:elsewhere", "SPOOL_DATA_DIRECTORY"),
        (Settings, "SPOOL_BUS", "amqp://", "names no host"),
        (Settings, "SPOOL_BUS", "amqp://mq:none/", "is not an address"),
        (Settings, "SPOOL_BUS", "amqp://user:word@one,two:none/", "is not an address"),
        (Settings, "SPOOL_BUS", "amqp://user:word@one,,three/", "names no host"),
        (Settings, "SPOOL_STORAGE", "/var/media", "file:, s3:"),
        (Settings, "SPOOL_STORAGE", "s3://", "names no bucket"),
        (Settings, "SPOOL_STORAGE", "file://", "names no path"),
        (Settings, "SPOOL_DATABASE", "sqlite://", "names no path"),
        (Settings, "SPOOL_STORAGE", "s3://[a", "is not an address"),
        (Settings, "SPOOL_DATABASE", "mysql://a/b", "sqlite:, postgresql:"),
        (Settings, "SPOOL_HTTP_PORT", "http", "valid integer"),
        (Settings, "SPOOL_HTTP_PORT", "65536", "65535"),
        (Settings, "SPOOL_API_KEYS", "a-long-random-key,short", "at least 16 characters"),
        (Settings, "SPOOL_API_KEYS", "ein-sehr-langer-schlüssel", "ASCII"),
        (Settings, "SPOOL_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        (Settings, "SPOOL_FFMPEGS_AT_ONCE", "0", "greater than or equal to 1"),
        (Settings, "SPOOL_DRAIN_GRACE_S", "1.5", "valid integer"),
        (ClipperSettings, "SPOOL_CLIPPER_HANDS", "33", "less than or equal to 32"),
        (ClipperSettings, "SPOOL_CLIPPER_KEY_PREFIX", "../up/", "pattern"),
        (ClipperSettings, "SPOOL_CLIPPER_KEY_PREFIX", "no-slash", "pattern"),
        (ClipperSettings, "SPOOL_CLIPPER_THUMBNAIL_WIDTHS", "300,wide", "valid integer"),
        (ClipperSettings, "SPOOL_CLIPPER_THUMBNAIL_WIDTHS", "8", "between 16 and 7680"),
        (ClipperSettings, "SPOOL_CLIPPER_THUMBNAIL_WIDTHS", "16," * 9, "at most 8 widths"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_wrong_and_an_example_that_would_do(
    monkeypatch: pytest.MonkeyPatch, group: type[Environment], variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as caught:
        load(group)

    said, _, example = str(caught.value).partition(f"; for example {variable}=")
    assert said.startswith(f"{variable}: ")
    assert words in said
    assert "\n" not in said
    monkeypatch.setenv(variable, example)
    assert isinstance(load(group), group)


@pytest.mark.parametrize("wrong", ["amqp://mq:none/", "aws:?regoin=x", "local:elsewhere"])
def test_the_example_is_of_the_kind_that_was_given(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("SPOOL_BUS", wrong)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert f"for example SPOOL_BUS={wrong.partition(':')[0]}:" in str(caught.value)


def test_a_wrong_setting_is_told_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOL_BUS", "amqp+tls://user:very-secret@mq/")

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert "very-secret" not in str(caught.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"SPOOL_BUS=\xff\xfe")

    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        load_settings()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", ()),
        ("640", (640,)),
        ("640, 300,640", (300, 640)),
        ("640 300", (300, 640)),
    ],
)
def test_widths_are_a_list_as_one_writes_it_in_a_shell(
    monkeypatch: pytest.MonkeyPatch, written: str, read: tuple[int, ...]
) -> None:
    monkeypatch.setenv("SPOOL_CLIPPER_THUMBNAIL_WIDTHS", written)

    assert load(ClipperSettings).thumbnail_widths == read


def test_every_setting_without_a_value_has_an_example() -> None:
    fields = {**Settings.model_fields, **ClipperSettings.model_fields}

    assert [
        name for name, field in fields.items() if field.default in {None, ()} and not field.examples
    ] == []


HERE = "http://collector:4318"
GRPC = "collector:4317"


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        pytest.param({}, None, id="off"),
        pytest.param({"ENDPOINT": ""}, None, id="empty"),
        pytest.param({"ENDPOINT": HERE}, f"{HERE}/v1/traces", id="of all signals"),
        pytest.param({"ENDPOINT": f"{HERE}/"}, f"{HERE}/v1/traces", id="with a slash"),
        pytest.param({"TRACES_ENDPOINT": f"{HERE}/x", "ENDPOINT": "http://a"}, f"{HERE}/x", id="of traces"),
        pytest.param(
            {"ENDPOINT": HERE, "PROTOCOL": "grpc", "TRACES_PROTOCOL": "http/protobuf"},
            f"{HERE}/v1/traces",
            id="another protocol, not for traces",
        ),
        pytest.param({"PROTOCOL": "grpc"}, None, id="another protocol to nowhere"),
    ],
)
def test_spans_go_where_the_variables_of_opentelemetry_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)

    assert load(TraceSettings).endpoint == endpoint


@pytest.mark.parametrize(
    "off",
    [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_TRACES_EXPORTER", "console")],
)
def test_what_is_off_finds_no_fault_with_the_rest(
    monkeypatch: pytest.MonkeyPatch, off: tuple[str, str]
) -> None:
    monkeypatch.setenv(*off)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", GRPC)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    assert load(TraceSettings).endpoint is None


def test_a_protocol_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", HERE)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    with pytest.raises(SettingsError, match=r"^OTEL_EXPORTER_OTLP_PROTOCOL: .*http/protobuf"):
        load(TraceSettings)
