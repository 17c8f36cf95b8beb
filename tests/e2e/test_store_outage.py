"""The store is away while clips are asked for: they wait, burn no attempt, and are all made in the end."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from shared.events.clip import ClipAvailable
from spool.camera import Recording
from tests.e2e.running_spool import Addresses, clip_of, running_spool, spool_settings
from tests.integration.tcp_proxy import open_proxy

CAMERA = "door"
CLIPS = 3


async def test_clips_wait_for_a_store_that_is_away(
    tmp_path: Path, s3_url: str, recordings: tuple[Recording, Recording]
) -> None:
    endpoint = urlsplit(parse_qs(urlsplit(s3_url).query)["endpoint"][0])
    async with open_proxy(str(endpoint.hostname), endpoint.port or 80) as proxy:
        there = quote(f"http://127.0.0.1:{proxy.port}", safe=":/")
        storage = urlsplit(s3_url)._replace(query=f"endpoint={there}&region=us-east-1").geturl()
        settings = spool_settings(tmp_path / "data", Addresses(storage=storage))
        async with running_spool(settings) as spool:
            await spool.add(CAMERA, *recordings)
            await proxy.refuse()
            requests = [clip_of(f"waited-{each}", CAMERA, 1_000, 2_000) for each in range(CLIPS)]
            for request in requests:
                await spool.publish(request)
            while not await spool.metric("spool_inbox_paused", subscription="clipper.clip_requested"):
                await spool.until("/api/v1/work", lambda page: bool(page["work"]), type="clip_requested")
            ready = await spool.http.get("/health/ready")
            await proxy.accept()
            answers = [(await spool.ears.answers(request.clip_id))[-1] for request in requests]
            work = (await spool.get("/api/v1/work", type="clip_requested"))["work"]
            letters = (await spool.get("/api/v1/dead-letters"))["deadLetters"]

    assert ready.status_code == 503
    assert "storage" in ready.json()["problems"]
    assert [answer.type for answer in answers] == [ClipAvailable.type] * CLIPS
    assert [(row["state"], row["attempt"]) for row in work] == [("done", 1)] * CLIPS
    assert letters == []
