"""What fits on every bus, and what on some.

Names and headers are held to the smallest limits of all transports, so that a Spool which moves from one
to another is never surprised by them. How large a body may be differs too much for that: every transport
tells its own limit (`Capabilities.max_body_bytes`), see docs/decisions/0007.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.bus.message import Message
from shared.bus.port import TooLarge
from shared.kernel.errors import Refused

MAX_BODY_BYTES = 16 * 1024 * 1024  # what RabbitMQ 4 takes unless it is told otherwise; locally the same
MAX_NAME_BYTES = 255  # an AMQP short string: ids, types, content types
MAX_HEADER_NAME_BYTES = 128  # AMQP's field names; clients cut longer ones short without a word
MAX_HEADERS_BYTES = 64 * 1024  # AMQP sends all headers in one frame of 128 KiB, shared with the rest


def check_size(message: Message) -> None:
    """Raise TooLarge for a message that is not carried anywhere, Refused for text that is no Unicode.

    A transport with a smaller limit for bodies looks at it in addition.
    """
    if len(message.body) > MAX_BODY_BYTES:
        raise TooLarge(f"the body has {len(message.body)} bytes, at most {MAX_BODY_BYTES} are carried")
    for field, text, limit_bytes in _names(message):
        if _size_bytes(field, text) > limit_bytes:
            raise TooLarge(f"the {field} is longer than {limit_bytes} bytes")
    headers_bytes = sum(
        _size_bytes("header", name) + _size_bytes(f"header {name}", value)
        for name, value in message.headers.items()
    )
    if headers_bytes > MAX_HEADERS_BYTES:
        raise TooLarge(f"the headers have {headers_bytes} bytes, at most {MAX_HEADERS_BYTES} are carried")


def _names(message: Message) -> Iterator[tuple[str, str, int]]:
    yield "id", message.id, MAX_NAME_BYTES
    yield "type", message.type, MAX_NAME_BYTES
    yield "content type", message.content_type, MAX_NAME_BYTES
    for name in message.headers:
        yield "name of a header", name, MAX_HEADER_NAME_BYTES


def _size_bytes(field: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise Refused(f"the {field} is not valid Unicode", field=field) from error
