"""ffmpeg's command lines: every input is pinned, nothing but what is given can be opened."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import pytest

from shared.media import commands
from shared.media.commands import Frame, Input, Piece

URL = "http://127.0.0.1:4000/secret"


def piece(start_s: str, duration_ms: int, *, pictures: bool = True, sound: bool = True) -> Piece:
    return Piece(
        commands.served(URL, "matroska"), Fraction(start_s), duration_ms, pictures=pictures, sound=sound
    )


ALL = [
    pytest.param(commands.decode_pictures("h264"), 1, id="decode pictures"),
    pytest.param(commands.decode_mp4(), 1, id="decode a file"),
    pytest.param(commands.decode_mp4(URL), 1, id="decode what is served"),
    pytest.param(commands.draw_pictures("h264", 3, [160, 320]), 1, id="draw"),
    pytest.param(commands.encode_pictures(2, 9, number=1, profile="main"), 1, id="encode pictures"),
    pytest.param(commands.list_packets(commands.served(URL, "mpegts")), 1, id="list"),
    pytest.param(commands.measure_picture(commands.served(URL, "avi")), 1, id="measure"),
    pytest.param(
        commands.encode([piece("0", 40), piece("1", 40)], Frame(64, 36), sound=True),
        2,
        id="encode",
    ),
]


def inputs(arguments: Sequence[str]) -> list[Sequence[str]]:
    """Return the options of each input, from `-f` up to what follows `-i`."""
    found: list[Sequence[str]] = []
    rest = list(arguments)
    while "-i" in rest:
        end = rest.index("-i") + 2
        found.append(rest[rest.index("-f") : end])
        rest = rest[end:]
    return found


@pytest.mark.parametrize(("arguments", "count"), ALL)
def test_every_input_is_pinned(arguments: Sequence[str], count: int) -> None:
    described = inputs(arguments)

    assert len(described) == count
    for options in described:
        pairs = dict(pairwise(options))
        assert pairs["-format_whitelist"] == pairs["-f"]
        protocols = {"pipe:0": "pipe", "fd:": "fd", URL: "http,tcp"}
        assert pairs["-protocol_whitelist"] == protocols[pairs["-i"]]
        assert int(pairs["-max_pixels"]) == commands.MAX_PIXELS
        assert int(pairs["-threads"]) == commands.THREADS


@pytest.mark.parametrize(("arguments", "_count"), ALL)
def test_external_tracks_stay_off(arguments: Sequence[str], _count: int) -> None:
    assert not {"-enable_drefs", "-use_absolute_path", "-safe"} & set(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(commands.decode_pictures("h264"), id="pictures"),
        pytest.param(commands.decode_mp4(), id="a file"),
    ],
)
def test_a_decode_that_proves_stops_at_the_first_error(arguments: Sequence[str]) -> None:
    assert "-xerror" in arguments
    assert "explode" in arguments[arguments.index("-err_detect") + 1]


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://example.org/a.mp4", id="another host"),
        pytest.param("file:/etc/passwd", id="a file"),
        pytest.param("http://127.0.0.1.example.org/", id="a host that looks like ours"),
    ],
)
def test_only_the_loopback_is_ever_named(url: str) -> None:
    with pytest.raises(AssertionError):
        commands.served(url, "mov")


@pytest.mark.parametrize(
    ("from_s", "length_s", "options"),
    [
        pytest.param(
            None, Fraction(5), ("-copyts", "-start_at_zero", "-t", "5.000000"), id="from the beginning"
        ),
        pytest.param(
            Fraction(4, 3),
            Fraction(1, 3),
            (
                *("-copyts", "-start_at_zero", "-noaccurate_seek"),
                *("-ss", "1.333333", "-t", "0.333333"),
            ),
            id="from a moment",
        ),
    ],
)
def test_a_window_keeps_times_counted_from_the_first_packet(
    from_s: Fraction | None, length_s: Fraction, options: tuple[str, ...]
) -> None:
    assert commands.window(from_s, length_s) == options


def test_one_picture_is_decoded_once_for_all_widths() -> None:
    arguments = commands.draw_pictures("h264", 7, [160, 320])
    graph = arguments[arguments.index("-filter_complex") + 1]

    assert graph.startswith(r"[0:v:0]select=eq(n\,7),split=2[b0][b1];")
    assert graph.count("scale=") == 2
    assert arguments.count("-i") == 1
    assert [word for word in arguments if word in ("pipe:4", "pipe:5")] == ["pipe:4", "pipe:5"]


def test_each_piece_keeps_the_frames_whose_time_lies_in_it() -> None:
    graph = commands._graph([piece("1.5", 40), piece("0", 1000)], Frame(64, 36), sound=True)

    assert "[0:V:0]settb=1/90000,select='gte(t,1.4999990)*lt(t,1.5399990)',setpts=PTS-90000135000" in graph
    assert "[1:V:0]settb=1/90000,select='gte(t,-0.0000010)*lt(t,0.9999990)',setpts=PTS-90000000000" in graph
    assert "atrim=start_pts=72000:end_pts=73920,asetpts=PTS-72000" in graph
    assert "[v0][a0][v1][a1]concat=n=2:v=1:a=1[va][aa]" in graph


@pytest.mark.parametrize(
    ("pieces", "frame", "sound", "maps"),
    [
        pytest.param([piece("0", 40)], Frame(64, 36), True, ["[v]", "[a]"], id="picture and sound"),
        pytest.param([piece("0", 40, sound=False)], Frame(64, 36), False, ["[v]"], id="picture only"),
        pytest.param([piece("0", 40, pictures=False)], None, True, ["[a]"], id="sound only"),
    ],
)
def test_a_clip_has_the_tracks_that_its_sources_have(
    pieces: Sequence[Piece], frame: Frame | None, sound: bool, maps: list[str]
) -> None:
    arguments = commands.encode(pieces, frame, sound=sound)

    assert [after for word, after in pairwise(arguments) if word == "-map"] == maps


def test_what_sources_say_of_themselves_is_not_passed_on() -> None:
    arguments = commands.encode([piece("0", 40)], None, sound=True)

    assert arguments[arguments.index("-map_metadata") + 1] == "-1"
    assert arguments[arguments.index("-map_chapters") + 1] == "-1"
    assert arguments[-1] == commands.output_pipe(0)


def test_an_input_names_everything_before_its_url() -> None:
    described = Input("fd:", "mov", "fd", ("-copyts",)).arguments()

    assert described[:2] == ("-f", "mov")
    assert described[-3:] == ("-copyts", "-i", "fd:")


def test_pictures_are_encoded_in_the_order_they_are_shown() -> None:
    arguments = commands.encode_pictures(2, 9, number=5, profile="main")

    pairs = dict(pairwise(arguments))
    assert pairs["-vf"] == "select=between(n\\,2\\,8)"
    assert (pairs["-bf"], pairs["-profile:v"]) == ("0", "main")
    assert pairs["-x264-params"] == "sps-id=5:aud=1"
    assert arguments[-1] == commands.output_pipe(0)
