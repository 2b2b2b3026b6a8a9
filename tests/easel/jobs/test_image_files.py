"""The size of image files is read without a decoder; what is no whole file of its format is refused."""

import io
import os
import struct
import zlib

import pytest
from PIL import Image

from easel.jobs.image_files import NotAnImage, image_size
from easel.jobs.stored_images import image_bytes_max

OPTIONS = {
    "png": [{"compress_level": 1}, {"compress_level": 0}],
    "jpeg": [{"quality": 90}, {"quality": 100, "progressive": True}, {"quality": 0}],
    "webp": [
        {"quality": 90},
        {"lossless": True},
        {"quality": 80, "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00"},
    ],
}


def file_of(output_format, size=(48, 32), **options):
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, os.urandom(3 * size[0] * size[1])).save(buffer, output_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("output_format", OPTIONS)
def test_every_file_that_an_encoder_makes_has_its_size_and_is_no_larger_than_it_may_be(output_format):
    for options in OPTIONS[output_format]:
        for size in ((1, 1), (48, 32), (333, 257)):
            content = file_of(output_format, size, **options)
            assert image_size(content, output_format) == size
            assert len(content) <= image_bytes_max(width=size[0], height=size[1])


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("output_format", OPTIONS)
def test_what_is_no_whole_file_is_refused(output_format):
    good = file_of(output_format)
    others = [file_of(other) for other in OPTIONS if other != output_format]
    cut = [good[:length] for length in (0, 1, 8, 12, 20, 30, len(good) // 2, len(good) - 1)]
    spoilt = [good + b"\x00", good + good, b"\x00" + good, b"<svg/>", b"\xff\xd8" + 10**5 * b"\xff" + b"\xff\xd9"]
    for content in [*others, *cut, *spoilt]:
        with pytest.raises(NotAnImage):
            image_size(content, output_format)


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">II", 48, 32) + b"\x08\x02\0\0\0") + chunk(b"IEND", b""),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
        b"\x89PNG\r\n\x1a\n" + 100_000 * chunk(b"tEXt", b""),
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR",
        file_of("png")[:-16] + b"\x00" + file_of("png")[-15:],
        file_of("png")[:33] + chunk(b"IHDR", struct.pack(">II", 9, 9) + b"\x08\x02\0\0\0") + file_of("png")[33:],
        file_of("png")[:33] + chunk(b"acTL", struct.pack(">II", 2, 0)) + file_of("png")[33:],
    ],
    ids=["no data", "no header", "parts without end", "a part of 4 GB", "a wrong checksum", "two sizes", "animated"],
)
def test_a_png_is_read_to_its_end(content):
    with pytest.raises(NotAnImage):
        image_size(content, "png")
