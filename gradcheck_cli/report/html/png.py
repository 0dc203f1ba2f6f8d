"""Small images for the page: PNG with a palette, and the colours of the heat map."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

# Viridis of matplotlib (CC0) at equal distances: perceptually uniform, and told apart with any colour blindness.
VIRIDIS = (
    "440154 481467 482576 453781 404688 39558c 33638d 2d718e 287d8e 238a8d 1f968b 20a386 29af7f 3dbc74 56c667 75d054"
    " 95d840 bade28 dde318 fde725"
)


def colour_map(number: int) -> list[Colour]:
    """So many colours from the lowest to the highest."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in VIRIDIS.split()], dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, number)
    mixed = np.stack([np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)], axis=1)
    return [(int(red), int(green), int(blue)) for red, green, blue in np.rint(mixed)]


def encode_png(pixels: Bytes, palette: Sequence[Colour], transparent: int | None = None) -> bytes:
    """A PNG of palette indices (height, width), one of which may be transparent. PNG specification, 3rd edition."""
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    opacity = bytes(0 if index == transparent else 255 for index in range(len(palette)))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(channel for colour in palette for channel in colour)),
        (b"tRNS", opacity),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in chunks)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def data_address(image: bytes) -> str:
    """The image as an address, for `href`."""
    return f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}"
