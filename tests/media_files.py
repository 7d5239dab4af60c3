"""Tiny media files, made in code: real as far as a reader of their format would go into them, or real beginnings."""

from __future__ import annotations

import io
import struct
import wave
import zlib


def png(shade: int = 128, size: int = 2) -> bytes:
    """A grey square."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes([shade]) * size for _ in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def wav(samples: int = 80, level: int = 0) -> bytes:
    """A short silence, or a steady level."""
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(bytes([128 + level]) * samples)
    return out.getvalue()


def pdf(text: str = "Hello") -> bytes:
    """One page with a line of text."""
    stream = f"BT /F1 24 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%b endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def mp4(brand: bytes = b"isom") -> bytes:
    """The beginning of a film: its type box and an empty body."""
    return struct.pack(">I", 16) + b"ftyp" + brand + b"\0\0\2\0" + struct.pack(">I", 8) + b"mdat"


BEGINNINGS: dict[str, bytes] = {
    "image/png": png(),
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "image/heic": mp4(b"heic"),
    "image/heif": mp4(b"mif1"),
    "image/avif": mp4(b"avif"),
    "image/gif": b"GIF89a\x01\x00\x01\x00",
    "image/tiff": b"II*\x00\x08\x00\x00\x00",
    "image/bmp": b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36",
    "image/svg+xml": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "audio/wav": wav(),
    "audio/mp3": b"ID3\x04\x00\x00\x00\x00\x00\x00",
    "audio/flac": b"fLaC\x00\x00\x00\x22",
    "audio/ogg": b"OggS\x00\x02",
    "audio/aac": b"\xff\xf1\x50\x80\x00\x1f\xfc",
    "audio/aiff": b"FORM\x00\x00\x00\x2eAIFFCOMM",
    "audio/mp4": mp4(b"M4A "),
    "video/mp4": mp4(),
    "video/mov": mp4(b"qt  "),
    "video/3gpp": mp4(b"3gp4"),
    "video/mpeg": b"\x00\x00\x01\xba\x44\x00",
    "video/mp2t": (b"\x47" + b"\0" * 187) * 3,
    "video/webm": b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm",
    "video/x-matroska": b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska",
    "video/avi": b"RIFF\x24\x00\x00\x00AVI LIST",
    "video/x-flv": b"FLV\x01\x05",
    "video/wmv": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9",
    "application/pdf": pdf(),
    "application/zip": b"PK\x03\x04\x14\x00",
    "application/gzip": b"\x1f\x8b\x08\x00",
    "text/rtf": b"{\\rtf1\\ansi",
    "text/plain": "Grüße aus Köln\n".encode(),
}
"""A beginning of every type that is told by its content."""
