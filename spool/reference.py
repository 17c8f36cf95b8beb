"""Write the pages of `docs/reference/` from the code they describe: `python -m spool.reference`.

A test fails when a page is stale.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from services.clipper.settings import ClipperSettings
from shared.events.envelope import EventData
from shared.events.registry import TYPES
from shared.settings.settings import Environment, Settings, TraceSettings, load_settings, variable_of
from spool.reference_metrics import metrics_page
from spool.serving import SERVICES, Running, serve

PAGES = Path(__file__).parents[1] / "docs" / "reference"
MADE_BY = "<!-- Made by `make reference`, from the code. Changes here are lost. -->\n"


async def pages() -> dict[str, str]:
    """Return every page by its file name."""
    return {
        "settings.md": settings_page(),
        "events.md": events_page(),
        "metrics.md": metrics_page(MADE_BY),
        "openapi.json": await openapi_page(),
    }


def settings_page() -> str:
    lines = ["# Settings", MADE_BY, "From the environment, or from a `.env` file in the working directory."]
    for title, group in (
        ("Every process", Settings),
        ("Traces", TraceSettings),
        ("The clipper", ClipperSettings),
    ):
        lines += [f"\n## {title}\n", "| variable | default | what it is |", "| --- | --- | --- |"]
        lines += _setting_rows(group)
    return "\n".join(lines) + "\n"


def _setting_rows(group: type[Environment]) -> Iterator[str]:
    said = _attribute_docs(group)
    for name, field in group.model_fields.items():
        variable = variable_of(group, name)
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        yield f"| `{variable}` | {'' if shown in (None, '') else f'`{shown}`'} | {said[name]} |"


def _attribute_docs(model: type) -> dict[str, str]:
    """Return the string that stands below each attribute of a class, in one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)  # the source of a class is a class
    found = {}
    for attribute, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(attribute, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(attribute.target, ast.Name)
            assert isinstance(following.value, ast.Constant)
            found[attribute.target.id] = " ".join(str(following.value.value).split())
    return found


def events_page() -> str:
    lines = [
        "# Events",
        MADE_BY,
        "CloudEvents 1.0 as JSON, structured mode. `type` is the name below, `subject` what it is about,",
        "`sequence` counts what was told about one subject. Delivery is at least once:",
        "a repeated announcement has the same `id`, so receivers dedupe on it.",
        "The queue of a service's subscription is `<service>.<type>`; on RabbitMQ all events pass the topic",
        "exchange `spool` under their type as routing key.",
    ]
    for name, data_type in TYPES.items():
        lines += _event_section(name, data_type)
    return "\n".join(lines) + "\n"


def _event_section(name: str, data_type: type[EventData]) -> Iterator[str]:
    yield f"\n## `{name}`\n"
    yield f"A {data_type.kind.value}. {inspect.cleandoc(data_type.__doc__ or '')}\n"
    yield "| field | | what it is |"
    yield "| --- | --- | --- |"
    schema = data_type.model_json_schema(by_alias=True)
    for field, described in schema["properties"].items():
        needed = "" if field in schema.get("required", ()) else "optional"
        yield f"| `{field}` | {needed} | {_kind_of(described, schema)} |"
    for used, definition in schema.get("$defs", {}).items():
        fields = ", ".join(f"`{field}`" for field in definition["properties"])
        yield f"\n`{used}`: {fields}."


def _kind_of(described: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in described:
        return f"`{described['$ref'].rsplit('/', 1)[-1]}`"
    if "anyOf" in described:
        kinds = [_kind_of(kind, schema) for kind in described["anyOf"] if kind.get("type") != "null"]
        return " or ".join(kinds)
    if described.get("type") == "array":
        return f"list of {_kind_of(described['items'], schema)}"
    limits = {"pattern": "matches", "minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above"}
    said = [f"{word} `{described[key]}`" for key, word in limits.items() if key in described]
    return ", ".join([described.get("type", "value"), *said])


async def openapi_page() -> str:
    """Ask a running Spool, so that the page says what is really served."""
    with tempfile.TemporaryDirectory() as directory:
        settings = load_settings(data_directory=Path(directory), http_port=0, log_level="error")
        ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(settings, services=SERVICES, on_ready=ready.set_result))
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        running = await ready
        async with httpx.AsyncClient(headers={"x-api-key": running.api_key}) as client:
            answer = await client.get(f"{running.url}/openapi.json")
        serving.cancel()
        await asyncio.wait((serving,))
    return json.dumps(answer.json(), indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write all pages."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in asyncio.run(pages()).items():
        (PAGES / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}\n")


if __name__ == "__main__":
    main()
