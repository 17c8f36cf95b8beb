"""`spool uploads`: a person sees what a dead writer left, completes it or throws it away."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.database.opening import open_database
from shared.kernel.errors import NotFound
from shared.runtime.clock import SystemClock
from shared.storage.port import StoredObject
from spool.cli.app import run_command
from spool.migrations import migrate
from tests.integration.capturing import KEY, Capture, journal_of, open_store
from tests.integration.test_killed_captures import claim, let_claims_die

MIB = 1 << 20
on_s3 = pytest.mark.parametrize("site", ["s3"], indirect=True)


@dataclass(frozen=True, slots=True)
class Site:
    """A configured Spool that does not run."""

    data: Path
    address: str
    capsys: pytest.CaptureFixture[str]

    @property
    def database(self) -> str:
        return f"sqlite:///{self.data}/spool.db"

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run `spool uploads …`, and return its code and what it said."""
        code = run_command(["uploads", *arguments, "--data", str(self.data)])
        said = self.capsys.readouterr()
        return code, said.out + said.err

    def listed(self) -> list[dict[str, Any]]:
        code, said = self.run("list", "--json")
        assert code == 0
        told: list[dict[str, Any]] = json.loads(said)
        return told

    def leave(self, *, alive: bool = False, is_capture: bool = True) -> str:
        """Let a writer be killed after its first part, and return the id of its upload."""
        source = self.data / "recording"
        source.write_bytes(bytes(34 * MIB))
        owner = asyncio.run(self._claimed())
        capture = Capture(str(source), self.address, self.database, owner, 1, is_capture)
        subprocess.run([sys.executable, "-m", "tests.integration.capturing", capture.told()], check=False)
        if not alive:
            asyncio.run(self._claims_die())
        [left] = self.listed()
        upload_id: str = left["uploadId"]
        return upload_id

    def found(self) -> StoredObject:
        return asyncio.run(self._found())

    async def _claimed(self) -> tuple[int, int]:
        await migrate(self.database)
        database = await open_database(self.database, clock=SystemClock())
        try:
            return await claim(database)
        finally:
            await database.close()

    async def _claims_die(self) -> None:
        database = await open_database(self.database, clock=SystemClock())
        await let_claims_die(database)
        await database.close()

    async def _found(self) -> StoredObject:
        database = await open_database(self.database, clock=SystemClock())
        storage = await open_store(self.address, journal_of(database, self.address))
        try:
            return await storage.head(KEY)
        finally:
            await storage.close()
            await database.close()


@pytest.fixture(params=["file", "s3"])
def site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    if request.param == "file":
        address = str(tmp_path / "media")
        monkeypatch.setenv("SPOOL_STORAGE", Path(address).as_uri())
    else:
        address = request.getfixturevalue("s3_url")
        monkeypatch.setenv("SPOOL_STORAGE", address)
    return Site(tmp_path, address, capsys)


def test_a_capture_is_completed_by_hand(site: Site) -> None:
    upload_id = site.leave()
    [before] = site.listed()

    code, said = site.run("complete", upload_id)

    assert (before["key"], before["kind"], before["writer"]) == (KEY, "capture", "dead")
    assert (code, said) == (0, "completed, and marked as recovered\n")
    assert site.found().is_recovered
    assert [left["writer"] for left in site.listed()] in ([], ["recovered"])
    assert site.run("complete", upload_id)[0] != 0


def test_a_capture_is_thrown_away_by_hand(site: Site) -> None:
    upload_id = site.leave()

    assert site.run("abort", upload_id) == (0, "aborted\n")

    assert site.listed() == []
    with pytest.raises(NotFound):
        site.found()


@pytest.mark.parametrize("verb", ["complete", "abort"])
@on_s3
def test_what_is_being_written_is_left_alone(site: Site, verb: str) -> None:
    upload_id = site.leave(alive=True)

    code, said = site.run(verb, upload_id)

    assert code != 0
    assert "its claim lives" in said
    assert [left["writer"] for left in site.listed()] == ["at work"]


@on_s3
def test_what_is_made_again_is_not_completed(site: Site) -> None:
    upload_id = site.leave(is_capture=False)

    code, said = site.run("complete", upload_id)

    assert code != 0
    assert "spool uploads abort" in said
    assert site.run("abort", upload_id) == (0, "aborted\n")
    assert site.listed() == []


def test_an_upload_that_is_not_there_is_told(site: Site) -> None:
    site.leave()

    code, said = site.run("abort", "0123")

    assert code != 0
    assert "there is no unfinished upload 0123" in said


def test_the_list_is_a_table_for_people(site: Site) -> None:
    upload_id = site.leave()

    code, said = site.run("list")

    assert code == 0
    assert all(word in said for word in (upload_id, KEY, "capture", "dead"))
