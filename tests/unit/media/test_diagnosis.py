"""What ffmpeg 9 really says becomes the error and the sentence that a user needs."""

from __future__ import annotations

import signal

import pytest

from shared.kernel.errors import Bug, Corrupt, SpoolError, Transient, Unavailable
from shared.media.diagnosis import diagnose
from shared.media.ffmpeg import Ended


def ended(code: int, stderr: str = "", *, timed_out: bool = False) -> Ended:
    return Ended(code, stderr, timed_out=timed_out, frames=0, out_ms=0)


@pytest.mark.parametrize(
    ("stderr", "error", "words"),
    [
        pytest.param(
            "[in#0 @ 0x556b498d5200] moov atom not found\n"
            "[in#0 @ 0x556b498d4e80] Error opening input: Invalid data found when processing input",
            Corrupt,
            "no index (moov)",
            id="cut off",
        ),
        pytest.param(
            "[in#0 @ 0x5581d5578200] EBML header parsing failed\n"
            "[in#0 @ 0x5581d5577e80] Error opening input: Invalid data found when processing input",
            Corrupt,
            "cannot be decoded",
            id="not matroska",
        ),
        pytest.param(
            "[h264 @ 0x55d037d76400] cabac decode of qscale diff failed at 39 11\n"
            "[vist#0:0/h264 @ 0x55d037e78440] [dec:h264 @ 0x5] Error submitting packet to decoder: "
            "Invalid data found when processing input",
            Corrupt,
            "cabac decode of qscale",
            id="damaged picture",
        ),
        pytest.param(
            "[http @ 0x55c3c2687c80] Protocol 'http' not on whitelist 'fd'!\n"
            "[in#0 @ 0x55c3c2672e80] Error opening input: Invalid data found when processing input",
            Corrupt,
            "another file or address",
            id="wants to open an address",
        ),
        pytest.param(
            "[in#0 @ 0x55cd2e21f200] Format not on whitelist 'mov'",
            Corrupt,
            "another file",
            id="other format",
        ),
        pytest.param(
            "Stream map '' matches no streams.\nError parsing options for output file -.",
            Corrupt,
            "no such picture or sound",
            id="no picture",
        ),
        pytest.param(
            "[h264 @ 0x5572e41a7b00] [IMGUTILS @ 0x7ffe39fb8810] Picture size 640x360 exceeds specified max "
            "pixel count 1000, see the documentation if you wish to increase it",
            Corrupt,
            "larger than any camera",
            id="huge picture",
        ),
        pytest.param(
            "[in#0 @ 0x556ac3a41e80] Error opening input: End of file", Corrupt, "too early", id="short"
        ),
        pytest.param("Something never heard of", Corrupt, "Something never heard of", id="unknown words"),
        pytest.param("", Corrupt, "it said nothing", id="no words"),
        pytest.param(
            "[vf#0:0 @ 0x561d26341440] pthread_create() failed: Resource temporarily unavailable\n"
            "[vost#0:0/libx264 @ 0x561d2633f800] Task finished with error code: -22 (Invalid argument)",
            Transient,
            "more memory",
            id="no memory for a thread",
        ),
        pytest.param(
            "x264 [error]: malloc of size 85657917 failed\n[vost#0:0/libx264 @ 0x5] Invalid data found",
            Transient,
            "more memory",
            id="no memory for the encoder",
        ),
        pytest.param(
            "Error opening output files: Cannot allocate memory", Transient, "more memory", id="no memory"
        ),
        pytest.param(
            "[aost#0:1/copy @ 0x5] Error submitting a packet to the muxer: No space left on device",
            Unavailable,
            "no space left",
            id="full disk",
        ),
        pytest.param(
            "[tcp @ 0x562175928a80] Connection to tcp://127.0.0.1:9 failed: Connection refused",
            Unavailable,
            "lost the connection",
            id="no server",
        ),
        pytest.param("Unrecognized option 'nonsense'.", Bug, "arguments", id="wrong option"),
        pytest.param(
            "[AVFilterGraph @ 0x55e200e0b200] No such filter: 'nonsense'", Bug, "arguments", id="wrong filter"
        ),
        pytest.param(
            "[vost#0:0 @ 0x56410d8fbec0] Unknown encoder 'nonsense'", Bug, "arguments", id="wrong encoder"
        ),
    ],
)
def test_words_become_an_error(stderr: str, error: type[SpoolError], words: str) -> None:
    diagnosed = diagnose(ended(183, stderr), what="Decoding")

    assert type(diagnosed) is error
    assert words in str(diagnosed)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param(-signal.SIGSEGV, Corrupt, id="crash on the input"),
        pytest.param(-signal.SIGABRT, Corrupt, id="abort on the input"),
        pytest.param(-signal.SIGKILL, Transient, id="killed"),
        pytest.param(-signal.SIGXFSZ, Transient, id="file limit"),
        pytest.param(255, Transient, id="asked to stop at the CPU limit"),
        pytest.param(125, Bug, id="never started"),
    ],
)
def test_codes_become_an_error(code: int, error: type[SpoolError]) -> None:
    assert type(diagnose(ended(code), what="Decoding")) is error


def test_a_wall_limit_is_not_the_inputs_fault() -> None:
    diagnosed = diagnose(ended(255, "Invalid data found", timed_out=True), what="Decoding")

    assert type(diagnosed) is Transient


def test_an_ordinary_end_is_no_error() -> None:
    assert diagnose(ended(0, "[h264 @ 0x1] a warning"), what="Decoding") is None


def test_what_a_file_makes_ffmpeg_say_stays_on_one_line() -> None:
    diagnosed = diagnose(ended(1, "\x1b[31mred\rmoved " + "x" * 5000), what="Decoding")

    assert str(diagnosed).isprintable()
    assert len(str(diagnosed)) < 400
