"""Every setting of Spool: its variable, its default, and what a value has to look like.

Values come from the environment, or from a `.env` file in the working directory; the environment wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.kernel.addresses import each_host
from shared.kernel.errors import Refused
from shared.settings.aws_address import AwsAddress

PREFIX = "SPOOL_"

Group = TypeVar("Group", bound="Environment")


class SettingsError(Refused):
    """A setting is wrong: Spool does not start."""


def split_at_commas(value: object) -> object:
    """Let a list be written as `a,b` or `a b`, as a variable of a shell."""
    if isinstance(value, str):
        return tuple(part for part in value.replace(",", " ").split() if part)
    return value


# Written as `a,b`.
Words: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_at_commas)]
Numbers: TypeAlias = Annotated[tuple[int, ...], NoDecode, BeforeValidator(split_at_commas)]


class Environment(BaseSettings):
    """A group of settings. Each field is a variable: `SPOOL_` and its name, of a service `SPOOL_CLIPPER_`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )


class Settings(Environment):
    """What configures a process. Three addresses decide the rest: bus, storage and database."""

    bus: Annotated[
        str,
        Field(examples=["amqp://user:password@rabbitmq:5672/", "aws:?region=eu-central-1", "local:"]),
    ] = "local:"
    """Where events come from and go to: `local:`, `amqp://…` (RabbitMQ; `amqps://` for TLS), or `aws:`.

    `aws:?region=…&endpoint=…&prefix=spool&topics=one&create=yes` is SNS with SQS; every option may be left
    out, and [transports.md](transports.md) says what they mean.

    The nodes of a RabbitMQ cluster are named with commas, `amqp://user:password@one:5672,two:5672/`: when
    one goes away, Spool connects to the next.
    """
    bus_format: Literal["cloudevents", "plain"] = "cloudevents"
    """How results go out: `cloudevents`, or `plain` for subscribers of the older clip pipeline."""
    bus_plain_url: Annotated[str | None, Field(examples=["https://clips.example.org"])] = None
    """What the URLs of clips and thumbnails begin with in plain results. Without it they are paths."""
    storage: Annotated[
        str | None, Field(examples=["s3://bucket/prefix?region=eu-central-1", "file:///var/lib/spool/media"])
    ] = None
    """Where recordings and clips are: `file:///…` or `s3://bucket/prefix?endpoint=…&region=…`.

    Default: `media/` in the data directory. In a bucket they are kept as it is configured, or with
    `&encryption=AES256` (or `aws:kms`, and `&kms_key=…`), `&storage_class=STANDARD_IA`,
    `&tags=team=video,stage=live`.
    """
    database: Annotated[
        str | None,
        Field(
            examples=["postgresql://user:password@postgres:5432/spool", "sqlite:////var/lib/spool/spool.db"]
        ),
    ] = None
    """`sqlite:////absolute/path` or `postgresql://…`. Default: `spool.db` in the data directory."""
    aws_region: Annotated[str | None, Field(validation_alias="AWS_REGION", examples=["eu-central-1"])] = None
    """The region of `aws:` when the address names none, as containers on AWS are told it.

    Everything else about AWS is found as usual: credentials, profile, `AWS_ENDPOINT_URL`.
    """
    data_directory: Path = Path("spool-data")
    """The directory of the embedded default: database, bus, media, key and lock."""

    http_host: str = "127.0.0.1"
    """The address that the HTTP server listens on."""
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """The port of the HTTP server; 0 takes a free one."""
    public_url: Annotated[str | None, Field(examples=["https://spool.example.org"])] = None
    """How callers reach this server, when that is not `http://host:port`: used in signed URLs."""
    api_keys: Annotated[Words, Field(examples=["a-long-random-key,another-long-one"])] = ()
    """Keys that callers may use, separated by commas, each of 16 ASCII characters or more.

    Without any, the first start makes one.
    """
    url: Annotated[str | None, Field(examples=["http://127.0.0.1:8080"])] = None
    """The Spool that the command line talks to. Default: the one that runs on the data directory."""
    api_key: Annotated[str | None, Field(examples=["a-long-random-key"])] = None
    """The key that the command line gives to the Spool at `url`. Default: the one in the data directory."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on Spool's own logs are written; those of libraries from `warning` on."""
    log_format: Literal["json", "text"] = "json"
    """`json` for machines, `text` for people."""

    ffmpegs_at_once: Annotated[int, Field(ge=1, le=256)] = 2
    """How many ffmpeg processes may run at the same time."""
    keep_hours: Annotated[int, Field(ge=1, le=8760)] = 168
    """How long work that is done, and events that were told, can still be listed, in hours."""
    lease_s: Annotated[int, Field(ge=2, le=3600)] = 30
    """After how long without a sign of life of its process work is taken up by another one, in seconds."""
    drain_grace_s: Annotated[int, Field(ge=0, le=3600)] = 20
    """How long work may go on after SIGTERM before its claim is released."""

    @field_validator("api_keys")
    @classmethod
    def _keys_are_long(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < 16 or not key.isascii() for key in keys):
            raise ValueError("every key has at least 16 characters, all of them ASCII")
        return keys

    @field_validator("bus")
    @classmethod
    def _bus_is_known(cls, address: str) -> str:
        if address.startswith("local:") and address != "local:":
            raise ValueError("local: takes nothing behind it; SPOOL_DATA_DIRECTORY says where it is")
        if address.startswith("aws:"):
            AwsAddress.parse(address)
            return address
        for one in each_host(address):
            _complete(one, ("local", "amqp", "amqps", "aws"))
        return address

    @field_validator("bus_plain_url")
    @classmethod
    def _plain_url_is_one(cls, url: str | None) -> str | None:
        return url and _complete(url, ("http", "https")).rstrip("/")

    @field_validator("storage")
    @classmethod
    def _storage_is_known(cls, address: str | None) -> str | None:
        return address and _complete(address, ("file", "s3"))

    @field_validator("database")
    @classmethod
    def _database_is_known(cls, address: str | None) -> str | None:
        return address and _complete(address, ("sqlite", "postgresql"))

    @property
    def embedded(self) -> bool:
        """Whether something of this process lives in the data directory, which it then owns alone."""
        return self.bus == "local:" or self.embedded_database

    @property
    def embedded_database(self) -> bool:
        return self.database_address.startswith("sqlite:")

    @property
    def storage_address(self) -> str:
        return self.storage or (self.data_directory.absolute() / "media").as_uri()

    @property
    def database_address(self) -> str:
        return self.database or f"sqlite:///{self.data_directory.absolute() / 'spool.db'}"


class TraceSettings(Environment):
    """Where spans go: OpenTelemetry's own variables, of which the SDK reads the others by itself."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", env_ignore_empty=True)

    sdk_disabled: bool = False
    """True collects no spans, whatever endpoint is set."""
    traces_exporter: str = "otlp"
    """`otlp`; with anything else, as `none`, nothing is collected."""
    exporter_otlp_endpoint: Annotated[str | None, Field(examples=["http://collector:4318"])] = None
    """The collector that spans are sent to, by OTLP over HTTP. Without one nothing is collected.

    Needs the extra `otel`: `pip install '.[otel]'` in a clone; `make setup` installs it.
    """
    exporter_otlp_traces_endpoint: Annotated[
        str | None, Field(examples=["http://collector:4318/v1/traces"])
    ] = None
    """The same with its path, for spans alone. Default: `/v1/traces` of the former."""
    exporter_otlp_traces_protocol: Annotated[str | None, Field(examples=["http/protobuf"])] = None
    """How to speak to the collector, for spans alone. Default: as the next one."""
    exporter_otlp_protocol: str = "http/protobuf"
    """How to speak to the collector; the other protocols of OpenTelemetry are not there."""
    service_name: Annotated[str | None, Field(examples=["spool-clipper"])] = None
    """What the process is called in traces. Default: `spool-` and its services."""

    # These variables are often set for a whole cluster, so what is not used here is not found fault with.
    @field_validator("exporter_otlp_endpoint", "exporter_otlp_traces_endpoint")
    @classmethod
    def _endpoint_is_http(cls, address: str | None, info: ValidationInfo) -> str | None:
        used = cls._collects(info.data)
        return _complete(address, ("http", "https")) if address and used else address

    @field_validator("exporter_otlp_traces_protocol", "exporter_otlp_protocol")
    @classmethod
    def _protocol_is_there(cls, protocol: str | None, info: ValidationInfo) -> str | None:
        given = info.data
        endpoint = given.get("exporter_otlp_endpoint") or given.get("exporter_otlp_traces_endpoint")
        overruled = given.get("exporter_otlp_traces_protocol") is not None
        if protocol not in {None, "http/protobuf"} and endpoint and cls._collects(given) and not overruled:
            raise ValueError("Spool speaks http/protobuf only, to the port that is 4318 mostly")
        return protocol

    @staticmethod
    def _collects(given: Mapping[str, Any]) -> bool:
        return not given.get("sdk_disabled") and given.get("traces_exporter") == "otlp"

    @property
    def endpoint(self) -> str | None:
        """Where to send spans, None for nowhere."""
        if not self._collects(self.__dict__):
            return None
        if self.exporter_otlp_traces_endpoint or not self.exporter_otlp_endpoint:
            return self.exporter_otlp_traces_endpoint
        return f"{self.exporter_otlp_endpoint.rstrip('/')}/v1/traces"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings of a process; `overrides`, of the command line, win. Raises SettingsError."""
    return load(Settings, **overrides)


def load(group: type[Group], **overrides: Any) -> Group:
    """Read one group of settings from the environment and `.env`.

    Raises SettingsError, which names the variable, what is wrong with it, and a value that would do.
    """
    try:
        return group(**overrides)
    except ValidationError as error:
        raise SettingsError(_explain(group, error)) from None
    except UnicodeDecodeError:
        raise SettingsError("the file .env is not UTF-8", hint="write it again as plain text") from None


def variable_of(group: type[Environment], name: str) -> str:
    """Return the variable of the environment that a setting is read from."""
    alias = group.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else str(group.model_config["env_prefix"]) + name.upper()


def _explain(group: type[Environment], error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    variable = variable_of(group, name)
    wrong = first["msg"].removeprefix("Value error, ")
    return f"{variable}: {wrong}; for example {variable}={_example(group, name, str(first['input']))}"


def _example(group: type[Environment], name: str, given: str) -> str:
    """Return how it may look, of the kind that was given if there is one; never what was given itself."""
    field = group.model_fields[name]
    if field.examples:
        examples = [str(example) for example in field.examples]
        kind = given.partition(":")[0]
        return next((example for example in examples if example.partition(":")[0] == kind), examples[0])
    return ",".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)


def _complete(address: str, known: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port  # looked at, because only this raises for a port that is none
    except ValueError as error:
        raise ValueError(f"is not an address: {error}") from error
    if parts.scheme not in known:
        raise ValueError(f"starts with one of {', '.join(f'{name}:' for name in known)}")
    if parts.scheme in {"amqp", "amqps", "s3", "http", "https"} and not host:
        raise ValueError(f"names no {'bucket' if parts.scheme == 's3' else 'host'}")
    if parts.scheme in {"file", "sqlite"} and not parts.path.strip("/"):
        raise ValueError("names no path")
    return address
