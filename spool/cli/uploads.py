"""`spool uploads`: what was begun and never finished, and how a person ends it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spool.cli.asynchronous import run_to_end
from spool.cli.options import AsJson, Data
from spool.cli.tables import print_json, print_list
from spool.cli.words import with_ages

if TYPE_CHECKING:
    from shared.settings.settings import Settings
    from shared.storage.sweeping import Ending
    from spool.uploads import SeenUpload

UPLOAD = typer.Argument(metavar="UPLOAD", help="The upload's id.", show_default=False)
COLUMNS = {
    "upload": "uploadId",
    "key": "key",
    "kind": "kind",
    "parts": "parts",
    "begun": "startedAt",
    "writer": "writer",
}


def build_app() -> typer.Typer:
    """Return the group `spool uploads`."""
    app = typer.Typer(name="uploads", help="List unfinished uploads of SPOOL_STORAGE, and end them.")
    app.command("list")(list_uploads)
    app.command("complete")(complete_upload)
    app.command("abort")(abort_upload)
    return app


def list_uploads(data: Data = None, as_json: AsJson = False) -> None:
    """List what was begun and not finished, and what was recovered in the last thirty days."""
    items = [_told(seen) for seen in run_to_end(_all(_settings(data)))]
    if as_json:
        print_json(items)
    elif items:
        now = datetime.now(UTC)
        print_list([with_ages(item, ("startedAt",), now) for item in items], COLUMNS, whole=("upload",))
    else:
        typer.echo("nothing to list")


def complete_upload(upload_id: Annotated[str, UPLOAD], data: Data = None) -> None:
    """Make an object of the parts of a capture, marked as recovered. One that is written is refused."""
    from shared.storage.sweeping import Ending

    said = {
        Ending.RECOVERED: "completed, and marked as recovered",
        Ending.ABORTED: "aborted: it had no parts",
        Ending.ENDED: "it had ended already",
    }
    typer.echo(said[run_to_end(_complete(_settings(data), upload_id))])


def abort_upload(upload_id: Annotated[str, UPLOAD], data: Data = None) -> None:
    """Discard an upload with all its bytes. One that is written is refused."""
    run_to_end(_abort(_settings(data), upload_id))
    typer.echo("aborted")


def _told(seen: SeenUpload) -> dict[str, Any]:
    upload = seen.upload
    kinds = {True: "capture", False: "derived", None: None}
    writers = {True: "at work", False: "dead", None: None}
    return {
        "uploadId": upload.upload_id or None,
        "key": upload.key,
        "kind": kinds[upload.is_capture],
        "parts": seen.parts,
        "startedAt": datetime.fromtimestamp(upload.started_ms / 1000, UTC).isoformat(timespec="seconds"),
        "writer": "recovered" if seen.is_recovered else writers[seen.is_alive],
    }


def _settings(data: Data) -> Settings:
    from shared.settings.settings import load_settings

    return load_settings(**({} if data is None else {"data_directory": data}))


async def _all(settings: Settings) -> list[SeenUpload]:
    from spool.uploads import open_uploads

    async with open_uploads(settings, changing=False) as uploads:
        return await uploads.all()


async def _complete(settings: Settings, upload_id: str) -> Ending:
    from spool.opening import quiet_logs
    from spool.uploads import open_uploads

    with quiet_logs():
        async with open_uploads(settings, changing=True) as uploads:
            return await uploads.complete(upload_id)


async def _abort(settings: Settings, upload_id: str) -> None:
    from spool.opening import quiet_logs
    from spool.uploads import open_uploads

    with quiet_logs():
        async with open_uploads(settings, changing=True) as uploads:
            await uploads.abort(upload_id)
