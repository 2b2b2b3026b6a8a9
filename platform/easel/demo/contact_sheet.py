"""Lays pictures out on one sheet, each with its title and a note below it."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_CELL = 256
_GAP = 24
_LINE = 18
_LINES = 4
_COLUMNS = 4
_INK, _MUTED, _PAPER = (32, 32, 36), (110, 110, 118), (250, 250, 248)


def contact_sheet(cells: Sequence[tuple[bytes, str, str]]) -> Image.Image:
    """Return an RGB sheet, four a row, of (image file, title, note in small print); large images are scaled down."""
    columns = min(_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    pitch_x, pitch_y = _CELL + _GAP, _CELL + _LINE * _LINES + _GAP
    sheet = Image.new("RGB", (columns * pitch_x + _GAP, rows * pitch_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    title_font, note_font = ImageFont.load_default(14), ImageFont.load_default(12)
    for index, (image, title, note) in enumerate(cells):
        x, y = _GAP + index % columns * pitch_x, _GAP + index // columns * pitch_y
        picture = Image.open(io.BytesIO(image)).convert("RGB")
        picture.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x + (_CELL - picture.width) // 2, y + (_CELL - picture.height) // 2))
        draw.rectangle((x - 1, y - 1, x + _CELL, y + _CELL), outline=(225, 225, 222))
        lines = _wrapped(title, title_font, draw)[: _LINES - 1]
        for number, line in enumerate(lines):
            draw.text((x, y + _CELL + 4 + number * _LINE), line, fill=_INK, font=title_font)
        draw.text((x, y + _CELL + 4 + len(lines) * _LINE), note, fill=_MUTED, font=note_font)
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, draw: ImageDraw.ImageDraw) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= _CELL:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
