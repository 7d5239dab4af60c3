"""What a media file is, told by its content, its name and what was declared; and which types Gemini takes.

The content decides: names often lie, and what was declared has to agree with it.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

from airflow_provider_geminibatch.core.rows import Fault

HEAD_BYTES: Final = 4096
"""How much of a file ``sniff`` looks at."""

# What the guides on images, audio, video and documents name (ai.google.dev, 2026-06), in the words they use.
TAKEN: Final = frozenset(
    {
        *(f"image/{name}" for name in ("png", "jpeg", "webp", "heic", "heif")),
        *(f"audio/{name}" for name in ("wav", "mp3", "aiff", "aac", "ogg", "flac")),
        *(f"video/{name}" for name in ("mp4", "mpeg", "mov", "avi", "x-flv", "webm", "wmv", "3gpp")),
        *(f"text/{name}" for name in ("plain", "html", "css", "md", "csv", "xml", "rtf", "javascript", "x-python")),
        "application/pdf",
    }
)

_SAME: Final = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "audio/mpeg": "audio/mp3",
    "audio/x-mp3": "audio/mp3",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-aiff": "audio/aiff",
    "audio/x-flac": "audio/flac",
    "audio/opus": "audio/ogg",
    "audio/x-aac": "audio/aac",
    "application/ogg": "audio/ogg",
    "video/quicktime": "video/mov",
    "video/mpg": "video/mpeg",
    "video/mpegs": "video/mpeg",
    "video/x-msvideo": "video/avi",
    "video/flv": "video/x-flv",
    "video/x-ms-wmv": "video/wmv",
    "video/3gp": "video/3gpp",
    "application/x-pdf": "application/pdf",
    "text/markdown": "text/md",
    "application/xml": "text/xml",
    "application/rtf": "text/rtf",
    "application/javascript": "text/javascript",
    "application/x-javascript": "text/javascript",
    "application/x-python": "text/x-python",
}
"""Other names of what is taken."""

_BY_SUFFIX: Final = {
    **{f".{name}": f"image/{name}" for name in ("png", "webp", "heic", "heif", "gif", "bmp", "avif", "tiff")},
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".tif": "image/tiff", ".svg": "image/svg+xml",
    **{f".{name}": f"audio/{name}" for name in ("wav", "mp3", "aiff", "aac", "ogg", "flac")},
    ".aif": "audio/aiff", ".oga": "audio/ogg", ".opus": "audio/ogg", ".m4a": "audio/mp4",
    **{f".{name}": f"video/{name}" for name in ("mp4", "mpeg", "mov", "avi", "webm", "wmv")},
    ".mpg": "video/mpeg", ".m4v": "video/mp4", ".flv": "video/x-flv", ".3gp": "video/3gpp", ".mkv": "video/x-matroska",
    ".pdf": "application/pdf", ".txt": "text/plain", ".html": "text/html", ".htm": "text/html", ".css": "text/css",
    ".md": "text/md", ".csv": "text/csv", ".xml": "text/xml", ".rtf": "text/rtf", ".js": "text/javascript",
    ".py": "text/x-python",
}  # fmt: skip

# Where a file begins so, it is of that type. Sources: the formats' own specifications, as collected in the WHATWG MIME Sniffing
# standard (images, audio, video, PDF) and in the shared MIME-info database of freedesktop.org (the rest).
_BEGINS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mp3"),
    (b"ADIF", "audio/aac"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/wmv"),
    (b"{\\rtf", "text/rtf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
)
# The second word of containers that begin with RIFF or FORM and a length.
_IN_CONTAINER: Final = {
    (b"RIFF", b"WEBP"): "image/webp",
    (b"RIFF", b"WAVE"): "audio/wav",
    (b"RIFF", b"AVI "): "video/avi",
    (b"FORM", b"AIFF"): "audio/aiff",
    (b"FORM", b"AIFC"): "audio/aiff",
}
# The brand of ISO media files (ISO/IEC 14496-12); any other is MP4.
_BRANDS: Final = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1"), "image/heif"),
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    b"qt  ": "video/mov",
    **dict.fromkeys((b"M4A ", b"M4B "), "audio/mp4"),
    **dict.fromkeys((b"3gp4", b"3gp5", b"3gp6", b"3gg6"), "video/3gpp"),
}
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SVG: Final = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*)*<svg[\s>]", re.DOTALL)

_INSTEAD: Final = {
    "image/gif": "convert it to PNG, or to MP4 if it moves",
    "audio/mp4": "convert it to AAC, MP3, FLAC or WAV",
    "video/x-matroska": "convert it to MP4 or WebM",
    "video/mp2t": "convert it to MP4",
    "image/svg+xml": "draw it as PNG, or set mime_type='text/xml' to have its source read",
    "application/zip": "take out what is in it; of office documents make PDFs",
    "application/gzip": "unpack it",
}


def sniff(head: bytes) -> str:
    """The type that a file's first bytes (``HEAD_BYTES`` of them) show, or an empty text."""
    for begins, mime_type in _BEGINS:
        if head.startswith(begins):
            return mime_type
    if found := _IN_CONTAINER.get((head[:4], head[8:12])):
        return found
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head[:1] == b"\x47" and len(head) > 376 and head[188] == head[376] == 0x47:
        return "video/mp2t"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "image/bmp"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return _mpeg_audio(head)
    return _written(head)


def _mpeg_audio(head: bytes) -> str:
    """A stream that begins with eleven set bits: layer III is MP3, no layer at all is AAC in ADTS (ISO/IEC 13818-7)."""
    layer, version = head[1] >> 1 & 3, head[1] >> 3 & 3
    if layer == 0:
        return "audio/aac" if head[1] & 0xF0 == 0xF0 else ""
    rate, pitch = head[2] >> 4, head[2] >> 2 & 3
    return "audio/mp3" if layer == 1 and version != 1 and 0 < rate < 15 and pitch != 3 else ""


def _written(head: bytes) -> str:
    if not head or _CONTROL.search(head):
        return ""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a character is cut where the head ends
            return ""
    return "image/svg+xml" if _SVG.match(head) else "text/plain"


def canonical(mime_type: str) -> str:
    plain = mime_type.partition(";")[0].strip().lower()
    return _SAME.get(plain, plain)


def suffix_type(name: str) -> str:
    """The type that a file's name says, or an empty text."""
    return _BY_SUFFIX.get(posixpath.splitext(re.split(r"[?#]", name)[0])[1].lower(), "")


def mime_of(head: bytes, *, name: str = "", declared: str | None = None) -> str | Fault:
    """The type of a file for the service, or why it can not be sent. ``name`` is its path or URI."""
    shown, said, named = sniff(head), canonical(declared or ""), suffix_type(name)
    if said:
        agrees = not shown or shown == said or _kindred(shown, said)
        return said if agrees else Fault(f"is {shown} by its content, and was declared as {said}", _CORRECT)
    if shown == "text/plain" and named:
        # A page that says "not found" is often kept under the name of the image that was asked for.
        return named if named.startswith("text/") else Fault(f"is text, and {named} by its name", "look into the file")
    found = shown or named
    if not found:
        return Fault(
            "is of a type that neither its content nor its name shows", "set Media(mime_type=…), or convert it"
        )
    if found not in TAKEN:
        return Fault(f"is {found}, which Gemini does not take", _INSTEAD.get(found, _take_instead(found)))
    return found


_CORRECT = "leave out mime_type, or correct the file"


def _kindred(shown: str, said: str) -> bool:
    """Whether the first bytes leave it open: texts are alike, and some containers hold more than they tell."""
    families = ({"video/mp4", "audio/mp4", "video/mov", "video/3gpp"}, {"image/heic", "image/heif"})
    both = {shown, said}
    return any(both <= one for one in families) or (
        said.startswith("text/") and shown in ("text/plain", "image/svg+xml")
    )


def _take_instead(found: str) -> str:
    kind = found.partition("/")[0] + "/"
    names = sorted(name.partition("/")[2] for name in TAKEN if name.startswith(kind))
    return f"convert it to {', '.join(names)}" if names else "convert it to PDF or text"


__all__ = ["HEAD_BYTES", "TAKEN", "canonical", "mime_of", "sniff", "suffix_type"]
