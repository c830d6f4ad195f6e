"""Metadata of a picture file (EXIF, XMP, IPTC-IIM, resolution), copied to its result.

The result is upright, in sRGB, and a new picture; so orientations become 1 and thumbnails of the old one are left out.
Everything else stays as it is: EXIF is copied field by field with types and bytes untouched (Pillow's own writer turns
letters beyond ASCII into question marks), XMP is edited as a document, IPTC is carried as a block.
"""

from __future__ import annotations

import binascii
import dataclasses
import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar, Union
from xml.dom import minidom

from colorization.core.errors import warn

T = TypeVar("T")

# One field of an IFD: TIFF's number of its type, how many values, their bytes; or a further IFD that it points to.
Field = tuple[int, int, bytes]
Ifd = dict[int, Union[Field, "Ifd"]]

EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, SOFTWARE = 0x0112, 0x011A, 0x011B, 0x0128, 0x0131
XMP, IPTC, PHOTOSHOP = 700, 33723, 34377
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_POINTERS = (EXIF, GPS, INTEROPERABILITY)
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 1, 2, 3, 4, 5, 7, 16
# TIFF 6 and its supplements: fields on the layout and coding of the pixels, and those that this module copies itself.
_OF_THE_PIXELS = {
    *(*range(254, 260), *range(262, 267), 273, 274, *range(277, 282), 284, *range(288, 294), 301, *range(317, 337)),
    *(*range(338, 344), 347, *range(512, 522), *range(529, 533), XMP, IPTC, PHOTOSHOP, 34675, 37724, 50838, 50839),
}
_IPTC_RESOURCE = 0x0404  # of Photoshop's image resource blocks
_PNG_IPTC = "Raw profile type iptc"  # ImageMagick's convention, which ExifTool and Exiv2 also read

COLORIZED_BY = "colorized by software, weights"  # how a disclosure begins

# IPTC NewsCodes; a captured photo with parts (here the colours) by a model that was trained on other media.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_XMP_MM = "http://ns.adobe.com/xap/1.0/mm/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_XMLNS = "http://www.w3.org/2000/xmlns/"
_EMPTY_XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"/></x:xmpmeta>'.encode()


@dataclass(frozen=True)
class Metadata:
    """The metadata that is copied to the result.

    Attributes:
        ifd: EXIF with its further IFDs; of a TIFF the fields of the first page that do not describe its pixels.
        order: byte order of ``ifd``, ``<`` or ``>``.
        xmp: the packet.
        iptc: the IPTC-IIM records.
        dpi: horizontal and vertical.
        pages: how many the file has.
    """

    ifd: Ifd = field(default_factory=dict)
    order: str = "<"
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    pages: int = 1


def _sound(what: str, read: Callable[[], T], otherwise: T) -> T:
    """The value of ``read``; if it fails in any way, ``otherwise`` with a warning: the picture matters more."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001 (parsers of other people's bytes: RecursionError, OverflowError, ...)
        reason = str(error) or type(error).__name__
    warn(f"{what} is damaged and left out ({reason})")
    return otherwise


# EXIF and TIFF


def _read_ifd(file: IO[bytes], offset: int, order: str, big: bool = False) -> Ifd:
    """The IFD at ``offset`` with those that it points to. Raises ``ValueError`` or ``struct.error`` for a damaged one.

    Args:
        file: a TIFF, or the block of an EXIF, which is one.
        order: ``<`` or ``>``.
        big: BigTIFF.
    """
    seen: set[int] = set()

    def read(offset: int) -> Ifd:
        if offset in seen:
            raise ValueError("an IFD within itself")
        seen.add(offset)
        file.seek(offset)
        count_format, word = ("Q", 8) if big else ("H", 4)
        (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(order + count_format)))
        size = 4 + 2 * word
        if count > 4096:
            raise ValueError("an IFD with more than 4096 fields")
        entries = file.read(count * size)
        result: Ifd = {}
        for i in range(count):
            tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), entries, i * size)
            value = entries[i * size + 4 + word : (i + 1) * size]
            length = _TYPE_SIZES.get(kind, 0) * number
            if not length:
                continue
            if tag in _POINTERS:
                result[tag] = read(struct.unpack(order + "Q", value)[0] if kind == 18 else _first(value, kind, order))
                continue
            if length > word:
                file.seek(struct.unpack(order + ("Q" if big else "I"), value)[0])
                value = file.read(length)
                if len(value) < length:
                    raise ValueError(f"tag {tag} is cut short")
            result[tag] = (kind, number, value[:length])
        return result

    return read(offset)


def _first(value: bytes, kind: int, order: str) -> int:
    letter = {_SHORT: "H", _LONG8: "Q"}.get(kind, "I")
    return struct.unpack_from(order + letter, value)[0]


def _next_ifd(file: IO[bytes], offset: int, order: str, big: bool) -> int:
    """Offset of the IFD that follows the one at ``offset``; 0 after the last."""
    file.seek(offset)
    count_format, word, letter = ("Q", 8, "Q") if big else ("H", 4, "I")
    (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(order + count_format)))
    file.seek(count * (4 + 2 * word), os.SEEK_CUR)
    return struct.unpack(order + letter, file.read(word))[0]


def _write_ifd(ifd: Ifd, offset: int, order: str, big: bool = False, following: int = 0) -> bytes:
    """The bytes of an IFD, and of those that it points to, for a place at ``offset`` (even) in a file.

    Args:
        following: offset of the next page's IFD.
    """
    word, letter = (8, "Q") if big else (4, "I")
    head = struct.pack(order + ("Q" if big else "H"), len(ifd))
    size = len(head) + len(ifd) * (4 + 2 * word) + word
    entries, values = [head], b""
    for tag, content in sorted(ifd.items()):
        place = offset + size + len(values)
        if isinstance(content, dict):
            kind, number, value = (_LONG8 if big else _LONG), 1, struct.pack(order + letter, place)
            values += _write_ifd(content, place, order, big)
        else:
            kind, number, value = content
            if len(value) > word:
                values += value + b"\0" * (len(value) % 2)
                value = struct.pack(order + letter, place)
        entries.append(struct.pack(order + "HH" + letter, tag, kind, number) + value.ljust(word, b"\0"))
    return b"".join(entries) + struct.pack(order + letter, following) + values


def exif_block(metadata: Metadata, limit: int | None = None) -> bytes:
    """EXIF as the TIFF that JPEG, PNG and WebP hold; ``b""`` if there is none.

    Args:
        limit: bytes that the format can hold. Fields that do not fit are dropped, the largest first, with a warning.
    """
    ifd = dict(metadata.ifd)
    if metadata.dpi and not _dpi_of_ifd(ifd, metadata.order):
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), metadata.dpi, strict=True):
            ifd[tag] = (_RATIONAL, 1, struct.pack(metadata.order + "II", min(round(value * 10000), 2**32 - 1), 10000))
        ifd[RESOLUTION_UNIT] = (_SHORT, 1, struct.pack(metadata.order + "H", 2))
    if not ifd:
        return b""
    head = struct.pack(metadata.order + "2sHI", b"II" if metadata.order == "<" else b"MM", 42, 8)
    block = head + _write_ifd(ifd, 8, metadata.order)
    if limit is not None and len(block) > limit:
        parts = [(ifd, tag) for tag in ifd]
        parts += [(sub, tag) for sub in ifd.values() if isinstance(sub, dict) for tag in sub]
        _, _, owner, largest = max(
            ((len(f[2]), -i, o, t) for i, (o, t) in enumerate(parts) if isinstance(f := o[t], tuple)),
        )
        warn(f"EXIF has more than {limit} bytes; its tag {largest} is left out")
        smaller = {
            t: ({k: v for k, v in f.items() if not (f is owner and k == largest)} if isinstance(f, dict) else f)
            for t, f in ifd.items()
            if not (owner is ifd and t == largest)
        }
        return exif_block(dataclasses.replace(metadata, ifd=smaller, dpi=None), limit)
    return block


# IPTC


def photoshop_block(iptc: bytes) -> bytes:
    """IPTC-IIM as an image resource block of Photoshop, in which JPEG and PNG hold it."""
    return b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def _iptc_of_photoshop(block: bytes) -> bytes | None:
    """The IPTC-IIM among image resource blocks; ``None`` if there is none."""
    place = 0
    while block[place : place + 4] == b"8BIM" and place + 7 <= len(block):
        resource, name = struct.unpack_from(">HB", block, place + 4)
        place += 6 + (name + 2) // 2 * 2  # a Pascal string, padded to even
        if place + 4 > len(block):
            return None
        (size,) = struct.unpack_from(">I", block, place)
        if resource == _IPTC_RESOURCE:
            return block[place + 4 : place + 4 + size]
        place += 4 + size + size % 2
    return None


def png_iptc(iptc: bytes) -> tuple[str, str]:
    """Keyword and text of the PNG chunk that holds IPTC-IIM."""
    block = photoshop_block(iptc)
    digits = block.hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return _PNG_IPTC, "\niptc\n{:8d}\n{}\n".format(len(block), "\n".join(lines))


def _iptc_of_png(text: str) -> bytes | None:
    try:
        block = binascii.unhexlify("".join(text.split()[2:]))
    except ValueError:
        return None
    return _iptc_of_photoshop(block) if block.startswith(b"8BIM") else block


# XMP


def _parse(xmp: bytes) -> minidom.Document:
    """The packet as a document. Raises the parser's errors if it is damaged."""
    document = minidom.parseString(xmp.strip(b"\0 \t\r\n"))
    if not document.getElementsByTagNameNS(_RDF, "RDF"):
        raise ValueError("it has no rdf:RDF")
    return document


def _properties(document: minidom.Document, namespace: str, name: str) -> list[tuple[minidom.Element, bool]]:
    """Where a top-level property is given: its element, or the description that has it as an attribute (``True``)."""
    found = [(e, False) for e in document.getElementsByTagNameNS(namespace, name)]
    descriptions = document.getElementsByTagNameNS(_RDF, "Description")
    return found + [(d, True) for d in descriptions if d.hasAttributeNS(namespace, name)]


def _upright_xmp(xmp: bytes) -> bytes:
    """The packet with orientation 1 and without thumbnails."""
    if b"Orientation" not in xmp and b"Thumbnails" not in xmp:
        return xmp
    document = _parse(xmp)
    for element, as_attribute in _properties(document, _TIFF, "Orientation"):
        if as_attribute:
            element.getAttributeNodeNS(_TIFF, "Orientation").value = "1"  # type: ignore[union-attr]
        else:
            element.childNodes[:] = [document.createTextNode("1")]
    for element, _ in _properties(document, _XMP, "Thumbnails"):
        element.parentNode.removeChild(element)  # type: ignore[union-attr]
    return document.toxml(encoding="utf-8").split(b"?>", 1)[1]


def disclosed_xmp(xmp: bytes | None, disclosure: str) -> bytes:
    """The packet with IPTC's digital source type and AI system, and an entry in the history.

    A digital source type that it had is kept in that entry. Of a damaged packet nothing is kept, with a warning.
    """
    done = _sound("XMP", lambda: _disclosed_xmp(xmp, disclosure), None) if xmp else None
    return done or _disclosed_xmp(_EMPTY_XMP, disclosure)


def _disclosed_xmp(xmp: bytes, disclosure: str) -> bytes:
    document = _parse(xmp)
    rdf = document.getElementsByTagNameNS(_RDF, "RDF")[0]
    former = ""
    for name in ("DigitalSourceType", "AISystemUsed"):
        for element, as_attribute in _properties(document, _IPTC_EXT, name):
            if as_attribute:
                value = element.getAttributeNS(_IPTC_EXT, name)
                element.removeAttributeNS(_IPTC_EXT, name)
            else:
                value = element.getAttributeNS(_RDF, "resource") or "".join(
                    n.data for n in element.childNodes if isinstance(n, minidom.Text)
                )
                element.parentNode.removeChild(element)  # type: ignore[union-attr]
            if name == "DigitalSourceType" and value != SOURCE_TYPE:
                former = value.strip()

    def append(parent: minidom.Element, namespace: str, name: str, text: str = "") -> minidom.Element:
        element = document.createElementNS(namespace, name)
        element.setAttributeNS(_XMLNS, "xmlns:" + name.split(":")[0], namespace)
        if text:
            element.appendChild(document.createTextNode(text))
        parent.appendChild(element)
        return element

    description = append(rdf, _RDF, "rdf:Description")
    description.setAttributeNS(_RDF, "rdf:about", "")
    append(description, _IPTC_EXT, "Iptc4xmpExt:DigitalSourceType", SOURCE_TYPE)
    append(description, _IPTC_EXT, "Iptc4xmpExt:AISystemUsed", disclosure)
    # An existing history is extended: a property may occur only once.
    history = document.getElementsByTagNameNS(_XMP_MM, "History")
    lists = history[0].getElementsByTagNameNS(_RDF, "Seq") if history else []
    entries = lists[0] if lists else append(append(description, _XMP_MM, "xmpMM:History"), _RDF, "rdf:Seq")
    entry = append(entries, _RDF, "rdf:li")
    entry.setAttributeNS(_RDF, "rdf:parseType", "Resource")
    append(entry, _EVENT, "stEvt:action", "edited")
    append(entry, _EVENT, "stEvt:softwareAgent", disclosure)
    if former:
        append(entry, _EVENT, "stEvt:parameters", f"digital source type before: {former}")
    # Without the declaration, which is not allowed within a file's packet.
    return document.toxml(encoding="utf-8").split(b"?>", 1)[1]


# Files


def _exif_of_block(block: bytes) -> tuple[Ifd, str]:
    block = block.removeprefix(b"Exif\0\0")
    order = "<" if block[:2] == b"II" else ">"
    return _read_ifd(io.BytesIO(block), struct.unpack_from(order + "I", block, 4)[0], order), order


def _tiff_header(file: IO[bytes]) -> tuple[str, bool, int]:
    """Byte order, whether it is a BigTIFF, and the offset of the first IFD."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    return order, big, struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]


def count_pages(file: IO[bytes], most: int) -> int:
    """How many pages the chain of a TIFF has.

    Raises:
        ValueError: it goes round in a circle, or has more than ``most``.
        struct.error: it is cut short.
    """
    seen: set[int] = set()
    order, big, offset = _tiff_header(file)
    while offset:
        if offset in seen:
            raise ValueError("its pages go round in a circle")
        if len(seen) == most:
            raise ValueError(f"has more than {most} pages")
        seen.add(offset)
        offset = _next_ifd(file, offset, order, big)
    return len(seen)


def describe_tiff(path: str | os.PathLike[str], metadata: Metadata) -> None:
    """Give the first page of a TIFF, of the byte order of ``metadata``, all of that but the resolution."""
    additions = {t: f for t, f in metadata.ifd.items() if t not in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT)}
    if metadata.xmp:
        additions[XMP] = (_BYTE, len(metadata.xmp), metadata.xmp)
    if metadata.iptc:
        additions[IPTC] = (_UNDEFINED, len(metadata.iptc), metadata.iptc)
    if not additions:
        return
    with open(path, "r+b") as file:  # noqa: PTH123
        order, big, offset = _tiff_header(file)
        ifd = {**_read_ifd(file, offset, order, big), **additions}
        following = _next_ifd(file, offset, order, big)
        place = file.seek(0, os.SEEK_END)
        place += file.write(b"\0" * (place % 2))
        file.write(_write_ifd(ifd, place, order, big, following))
        file.seek(8 if big else 4)
        file.write(struct.pack(order + ("Q" if big else "I"), place))


def _dpi_of_ifd(ifd: Ifd, order: str) -> tuple[float, float] | None:
    fields = [ifd.get(tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    values = [struct.unpack(order + "II", f[2]) for f in fields if isinstance(f, tuple) and f[:2] == (_RATIONAL, 1)]
    unit = ifd.get(RESOLUTION_UNIT)
    factor = {2: 1.0, 3: 2.54}.get(_first(unit[2], _SHORT, order) if isinstance(unit, tuple) else 2)
    if factor is None or len(values) < 2 or not all(n and d for n, d in values):
        return None
    return values[0][0] / values[0][1] * factor, values[1][0] / values[1][1] * factor


def read(path: str | os.PathLike[str], kind: str, info: dict[Any, Any], pages: int) -> Metadata:
    """The metadata of a file. Damaged parts are dropped with a warning.

    Args:
        path: the file.
        kind: Pillow's name of its type.
        info: Pillow's ``info``; for a PNG after loading, because chunks may follow the pixels.
        pages: how many it has.
    """

    def exif() -> tuple[Ifd, str]:
        if kind == "TIFF":
            with open(path, "rb") as file:  # noqa: PTH123
                order, big, offset = _tiff_header(file)
                return _read_ifd(file, offset, order, big), order
        return _exif_of_block(info["exif"]) if info.get("exif") else ({}, "<")

    nothing: tuple[Ifd, str] = {}, "<"
    ifd, order = _sound("EXIF", exif, nothing)

    def of_tiff(tag: int) -> bytes | None:
        return content[2] if isinstance(content := ifd.get(tag), tuple) else None

    def xmp() -> bytes | None:
        found = of_tiff(XMP) if kind == "TIFF" else info.get("xmp") or info.get("XML:com.adobe.xmp")
        return _upright_xmp(found.encode() if isinstance(found, str) else found) if found else None

    def iptc() -> bytes | None:
        if kind == "TIFF":
            return of_tiff(IPTC) or _iptc_of_photoshop(of_tiff(PHOTOSHOP) or b"")
        if isinstance(info.get("photoshop"), dict):  # JPEG
            return info["photoshop"].get(_IPTC_RESOURCE)
        return _iptc_of_png(info[_PNG_IPTC]) if _PNG_IPTC in info else None

    def resolution() -> tuple[float, float] | None:
        # Of a JPEG without a resolution Pillow says 72.
        dpi = None if kind in ("JPEG", "MPO") and info.get("jfif_unit") not in (1, 2) else info.get("dpi")
        dpi = dpi or _dpi_of_ifd(ifd, order)
        return (float(dpi[0]), float(dpi[1])) if dpi is not None and all(0 < d < 1e5 for d in dpi) else None

    def upright() -> Ifd:
        orientation = ifd.get(ORIENTATION)
        code = _first(orientation[2].ljust(8, b"\0"), _SHORT, order) if isinstance(orientation, tuple) else 1
        kept = {tag: content for tag, content in ifd.items() if tag not in _OF_THE_PIXELS}
        sub = kept.get(EXIF)
        if code in (5, 6, 7, 8) and isinstance(sub, dict) and _PIXEL_X in sub and _PIXEL_Y in sub:
            kept[EXIF] = {**sub, _PIXEL_X: sub[_PIXEL_Y], _PIXEL_Y: sub[_PIXEL_X]}
        return kept

    return Metadata(
        _sound("EXIF", upright, {}),
        order,
        _sound("XMP", xmp, None),
        _sound("IPTC", iptc, None),
        _sound("the resolution", resolution, None),
        pages,
    )


def disclosed(metadata: Metadata, disclosure: str) -> Metadata:
    """With the disclosure in XMP, see :func:`disclosed_xmp`, and in EXIF's Software, after what that said."""
    before = metadata.ifd.get(SOFTWARE)
    text = before[2].rstrip(b"\0 ") if isinstance(before, tuple) and before[0] == _ASCII else b""
    new = disclosure.encode()
    text = text if new in text else b"; ".join(filter(None, (text, new)))
    software: Field = (_ASCII, len(text) + 1, text + b"\0")
    return dataclasses.replace(
        metadata, ifd={**metadata.ifd, SOFTWARE: software}, xmp=disclosed_xmp(metadata.xmp, disclosure)
    )


def is_disclosed(metadata: Metadata) -> bool:
    """Whether it says that this program made the colours."""
    software, mark = metadata.ifd.get(SOFTWARE), COLORIZED_BY.encode()
    return (isinstance(software, tuple) and mark in software[2]) or mark in (metadata.xmp or b"")
