"""What is sent to a server to do it harm, by kind; everything is seeded, and the same for the same seed and turn."""

import io
import json
import random
import socket
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote, urlsplit

from PIL import Image

from benchmarks.speed import made_jpegs

C = "/v1/collections/hostile"
ENDED = "connection ended"
PATIENCE_S = 120
BODY_LIMIT = 32 * 2**20  # the server's, for this measurement
CONNECTIONS_LIMIT = 60
WAIT_S = 1.0  # for a head or a body
JPEG = {"content-type": "image/jpeg"}
Outcome = int | str
Send = Callable[[str, int], Outcome]


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table: a name, how one is sent, and how many times; few where each waits for a time to pass."""

    name: str
    send: Send
    times: int = 0  # 0: as many as the plan says


def asked(
    url: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> Outcome:
    """Status of the answer. An image's own problem in a list of answers counts as what it would be alone."""
    http = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    try:
        http.request(method, path, body, headers or {})
        answer = http.getresponse()
        text = answer.read()
    except (OSError, HTTPException):
        return ENDED
    finally:
        http.close()
    if answer.status != 207:
        return answer.status
    found = json.loads(text)
    return int(next(one["problem"]["status"] for one in found.get("items") or found["results"] if "problem" in one))


def raw(url: str, *parts: bytes, pause_s: float = 0.0, ends: bool = False) -> Outcome:
    """Status of the answer to these bytes, sent as they are; `ends` closes our side after them."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), PATIENCE_S) as line:
        with suppress(OSError):  # an answer may come before everything was sent
            for part in parts:
                line.sendall(part)
                time.sleep(pause_s)
            if ends:
                line.shutdown(socket.SHUT_WR)
        try:
            found = line.recv(64)
        except OSError:
            return ENDED
    return int(found.split()[1]) if found.startswith(b"HTTP/") else ENDED


def head(path: str, *headers: str) -> bytes:
    """Head of a POST."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def scored(make: Callable[[int], bytes]) -> Send:
    """An image that is scored at one turn and added at the next."""

    def send(url: str, turn: int) -> Outcome:
        return asked(url, "POST", f"{C}/{('anomaly', 'images')[turn % 2]}", make(turn), JPEG)

    return send


def imported(make: Callable[[int], bytes]) -> Send:
    """An archive that is imported; what its job says is the outcome."""

    def send(url: str, turn: int) -> Outcome:
        http = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
        http.request("POST", f"{C}/images/import?wait=60", make(turn), {"content-type": "application/octet-stream"})
        answer = http.getresponse()
        job = json.loads(answer.read())
        http.close()
        if answer.status >= 300:
            return answer.status
        if job["state"] == "failed":
            return f"import failed, {job['problem']['status']}"
        return f"import {job['state']}, entries refused" if job["result"]["refused"] else f"import {job['state']}"

    return send


@cache
def picture() -> bytes:
    """A good JPEG."""
    return made_jpegs(1, (300, 200), 0)[0]


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@cache
def png_of(width: int, height: int, *, whole: bool) -> bytes:
    """A PNG that claims this size; `whole`: and holds it, in some thousandths of the bytes."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = b""
    if whole:
        packer = zlib.compressobj(9)
        row = bytes(1 + 3 * width)
        body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return start + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def mutated(turn: int) -> bytes:
    """A JPEG with some bytes changed."""
    chance = random.Random(turn)
    data = bytearray(picture())
    for _ in range(1 + turn % 20):
        data[chance.randrange(2, len(data))] = chance.randrange(256)
    return bytes(data)


def mutated_png(turn: int) -> bytes:
    """A PNG with some bytes changed."""
    chance = random.Random(turn)
    data = bytearray(encoded("PNG"))
    for _ in range(1 + turn % 5):
        data[chance.randrange(8, len(data))] = chance.randrange(256)
    return bytes(data)


def encoded(kind: str, frames: int = 1) -> bytes:
    """A small file of this kind."""
    out = io.BytesIO()
    images = [Image.new("RGB", (8, 8), (place % 256, place // 256, 0)) for place in range(frames)]
    images[0].save(out, kind, **({"save_all": True, "append_images": images[1:]} if frames > 1 else {}))
    return out.getvalue()


@cache
def many_frames() -> bytes:
    """A GIF of 2,000 frames."""
    return encoded("GIF", 2000)


def ring(_turn: int) -> bytes:
    """A TIFF whose directories form a ring."""
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HI", 0, 8) + bytes(64)


def strangers(turn: int) -> bytes:
    """Files of kinds that are not offered, and of none."""
    files = (
        b"<svg/>",
        b"%PDF-1.7",
        b"<!DOCTYPE html>",
        b"\0\0\0 ftypavif",
        b"",
        b"GIF89a",
        b"BM",
        b"\xff\xd8\xff",
        b"x",
    )
    return files[turn % len(files)] + random.Random(turn).randbytes(200) * (turn % 2)


def many_files(url: str, _turn: int) -> Outcome:
    """A multipart body of 1,500 files."""
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n'
    body = part * 1500 + b"--b--\r\n"
    return asked(url, "POST", f"{C}/images", body, {"content-type": "multipart/form-data; boundary=b"})


def broken_bodies(url: str, turn: int) -> Outcome:
    """Multipart, JSON and base64 that are none, or too deep, or hold what JSON has not."""
    bodies = (
        (b"--b\r\nnonsense", "multipart/form-data; boundary=b"),
        (b"{", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"a":' * 50_000, "application/json"),
        (b'{"images": [{"data": "%%%"}]}', "application/json"),
        (b'{"images": [{"data": "\\ud800"}], "k": NaN}', "application/json"),
        (b'{"vector": [1e999], "k": 1}', "application/json"),
        (random.Random(turn).randbytes(2000), "application/json"),
    )
    body, kind = bodies[turn % len(bodies)]
    return asked(url, "POST", f"{C}/{('images', 'query', 'anomaly')[turn % 3]}", body, {"content-type": kind})


def odd_names(url: str, turn: int) -> Outcome:
    """Names and ids that are paths, SQL, URLs, or no text."""
    names = (
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "' OR 1=1 --",
        "\0",
        "a\r\nSet-Cookie: x",
        "\u202egnp.exe",
        "x" * 5000,
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "%s%n",
    )
    name = quote(names[turn % len(names)], safe="")
    paths = (f"/v1/collections/{name}", f"{C}/images/{name}/content", f"/v1/jobs/{name}", f"{C}/classes/{name}")
    return asked(url, "GET", paths[turn // len(names) % len(paths)])


def odd_archive(turn: int) -> bytes:
    """An archive with paths that lead out, links, devices and one good image, or cut off."""
    out = io.BytesIO()
    if turn % 3 == 0:
        with zipfile.ZipFile(out, "w") as packed:
            for name in ("../../out.png", "/etc/out.png", "a/../../b.png", "good.png"):
                packed.writestr(name, encoded("PNG"))
    else:
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, kind in (("link", tarfile.SYMTYPE), ("device", tarfile.CHRTYPE), ("../x.png", tarfile.REGTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
            info = tarfile.TarInfo("good.png")
            info.size = len(encoded("PNG"))
            archive.addfile(info, io.BytesIO(encoded("PNG")))
    data = out.getvalue()
    return data if turn % 3 < 2 else data[: 512 * 3 + 100]


@cache
def bomb() -> bytes:
    """A small archive that unpacks to a quarter of a gigabyte."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for place in range(8):
            packed.writestr(f"{place}.png", bytes(2**25))
    return out.getvalue()


def flood(url: str, _turn: int) -> Outcome:
    """Twice as many connections as there may be; the outcome is of one that comes when all are taken."""
    place = urlsplit(url)
    lines = []
    try:
        for _ in range(2 * CONNECTIONS_LIMIT):
            lines.append(socket.create_connection((place.hostname, place.port), PATIENCE_S))
        return raw(url, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    except OSError:
        return ENDED
    finally:
        for line in lines:
            line.close()


def posted(*headers: str, body: bytes = b"", ends: bool = False) -> Send:
    """A POST of images with these headers, of which the body is only what is given."""
    return lambda url, _turn: raw(url, head(f"{C}/images", *headers), body, ends=ends)


def kinds() -> list[Kind]:
    """All of them, in the order of the table in docs/security.md."""
    chunks = (b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n") * (BODY_LIMIT // 2**20 + 2)
    chunked = ("Content-Type: image/png", "Transfer-Encoding: chunked")
    return [
        Kind("body over its limit, announced", posted("Content-Length: 99999999999")),
        Kind("body over its limit, not announced", posted(*chunked, body=chunks)),
        Kind("a length that lies", posted("Content-Length: 1000", body=bytes(10), ends=True)),
        Kind("a head that drips", lambda url, _: raw(url, b"P", b"O", b"S", b"T", pause_s=WAIT_S / 2), 4),
        Kind("a body that does not come", posted("Content-Length: 1000"), 4),
        Kind("a head over 64 KiB", posted("X-Long: " + "x" * 70_000)),
        Kind("a request line of garbage", lambda url, turn: raw(url, random.Random(turn).randbytes(200) + b"\r\n\r\n")),
        Kind("twice the connections that may be", flood, 5),
        Kind("1,500 files in a request", many_files),
        Kind("malformed multipart, JSON, base64; JSON nested deeply", broken_bodies),
        Kind("names that are paths, SQL, URLs, control characters", odd_names),
        Kind("PNG that claims 50,000 × 50,000", scored(lambda _: png_of(50_000, 50_000, whole=False))),
        Kind(
            "PNG of 9,000 × 9,000, more than a decoder may allocate", scored(lambda _: png_of(9000, 9000, whole=True))
        ),
        Kind("PNG of 4,000 × 4,000 in some KB", scored(lambda _: png_of(4000, 4000, whole=True)), 20),
        Kind("GIF of 2,000 frames", scored(lambda _: many_frames())),
        Kind("TIFF whose directories form a ring", scored(ring)),
        Kind("JPEG cut off", scored(lambda turn: picture()[: 20 + 97 * turn % (len(picture()) - 20)])),
        Kind("JPEG with changed bytes", scored(mutated)),
        Kind("PNG with changed bytes", scored(mutated_png)),
        Kind("files of kinds that are not offered, or of none", scored(strangers)),
        Kind("archive with paths that lead out, links, devices; cut off", imported(odd_archive), 12),
        Kind("archive of 260 KB that unpacks to 268 MB", imported(lambda _: bomb()), 4),
        Kind("bytes that are no archive", imported(lambda turn: random.Random(turn).randbytes(5000)), 12),
    ]
