"""Reads the size of PNG, JPEG and WebP files, and whether they are whole, without decoding a pixel.

The files come from workers that are not trusted. A decoder in C has more to attack than these few bytes of headers.
"""

import struct
import zlib
from collections.abc import Iterator
from itertools import islice

_PNG = b"\x89PNG\r\n\x1a\n"
_START_OF_FRAME = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive
_PARTS_MAX = 5000  # of a file: an encoder makes one per 8 kB or more
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


class NotAnImage(ValueError):
    """The bytes are no whole file of this format."""


def image_size(content: bytes, output_format: str) -> tuple[int, int]:
    """Return width and height in pixels of a file of `png`, `jpeg` or `webp`. Raises `NotAnImage`."""
    try:
        return {"png": _png, "jpeg": _jpeg, "webp": _webp}[output_format](content)
    except (struct.error, IndexError) as error:
        raise NotAnImage(f"the {output_format} file is cut off") from error


def _png(content: bytes) -> tuple[int, int]:
    if not content.startswith(_PNG):
        raise NotAnImage("the file is no PNG")
    view, place, kinds = memoryview(content), len(_PNG), list[bytes]()
    while b"IEND" not in kinds[-1:] and len(kinds) < _PARTS_MAX:
        length, kind = struct.unpack_from(">I4s", content, place)
        (checksum,) = struct.unpack_from(">I", content, place + 8 + length)
        if zlib.crc32(view[place + 4 : place + 8 + length]) != checksum:
            raise NotAnImage("a part of the PNG has another checksum")
        kinds.append(kind)
        place += 12 + length
    if (kinds[0], kinds[-1]) != (b"IHDR", b"IEND") or b"IDAT" not in kinds or place != len(content):
        raise NotAnImage("the PNG has not its parts, or more")
    if kinds.count(b"IHDR") > 1 or b"acTL" in kinds:
        raise NotAnImage("the PNG has not one picture")
    width, height = struct.unpack_from(">II", content, len(_PNG) + 8)
    return width, height


def _jpeg(content: bytes) -> tuple[int, int]:
    if not content.startswith(b"\xff\xd8"):
        raise NotAnImage("the file is no JPEG")
    place, size = 2, None
    for _ in range(_PARTS_MAX):
        mark, kind = content[place], content[place + 1]
        if mark != 0xFF:
            raise NotAnImage("the JPEG has no marker where one must be")
        if kind == 0xFF or kind in _ALONE:
            place += 1 if kind == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", content, place + 2)
        if kind in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", content, place + 5)
            size = (width, height)
        if kind == 0xDA:  # the scan's data follow, in which no marker is but the end's
            if size is None or content.find(b"\xff\xd9", place) != len(content) - 2:
                raise NotAnImage("the JPEG has no size before its data, or no end after them")
            return size
        if length < 2:
            raise NotAnImage("the JPEG has a part of no length")
        place += 2 + length
    raise NotAnImage("the JPEG has too many parts")


def _webp(content: bytes) -> tuple[int, int]:
    container, length, form = struct.unpack_from("<4sI4s", content)
    if (container, form) != (b"RIFF", b"WEBP") or length + 8 != len(content):
        raise NotAnImage("the file is no whole WebP")
    parts = list(islice(_webp_parts(content), _PARTS_MAX))
    if [kind for kind, _ in parts if kind in (b"VP8 ", b"VP8L", b"ANIM", b"ANMF")] not in ([b"VP8 "], [b"VP8L"]):
        raise NotAnImage("the WebP has not one picture")
    kind, place = next((kind, place) for kind, place in parts if kind in (b"VP8 ", b"VP8L"))
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", content, place)
        if signature != 0x2F:
            raise NotAnImage("the WebP's picture does not begin as one")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if content[place + 3 : place + 6] != b"\x9d\x01\x2a":
        raise NotAnImage("the WebP's picture does not begin as one")
    width, height = struct.unpack_from("<HH", content, place + 6)
    return width & 0x3FFF, height & 0x3FFF


def _webp_parts(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the kind of each chunk, and where its content begins."""
    place = 12
    while place < len(content):
        kind, length = struct.unpack_from("<4sI", content, place)
        if place + 8 + length > len(content):
            raise NotAnImage("the WebP is cut off")
        yield kind, place + 8
        place += 8 + length + (length & 1)
