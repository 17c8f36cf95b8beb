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

import httpx

from services.clipper.settings import ClipperSettings
from shared.events.registry import TYPES
from shared.settings.settings import Environment, Settings, TraceSettings, load_settings, variable_of
from spool.asyncapi import as_json, document
from spool.event_schemas import schema_of
from spool.reference_events import events_page
from spool.reference_metrics import metrics_page
from spool.serving import SERVICES, Running, serve

PAGES = Path(__file__).parents[1] / "docs" / "reference"
MADE_BY = "<!-- Made by `make reference`, from the code. Changes here are lost. -->\n"


async def pages() -> dict[str, str]:
    """Return every page by its path below `docs/reference`."""
    schemas = {f"schemas/{name}.json": as_json(schema_of(data_type)) for name, data_type in TYPES.items()}
    return {
        "settings.md": settings_page(),
        "events.md": events_page(MADE_BY),
        "metrics.md": metrics_page(MADE_BY),
        "openapi.json": await openapi_page(),
        "asyncapi.json": as_json(document()),
        **schemas,
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
        (PAGES / name).parent.mkdir(exist_ok=True)
        (PAGES / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}\n")


if __name__ == "__main__":
    main()
