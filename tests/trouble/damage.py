"""Two dozen ways in which a user's file can be wrong, and what a reader may answer.

    @pytest.mark.parametrize("name", damages())
    def test_…(name, tmp_path):
        file = …                                   # a good file
        damage(file, name)                         # … is now damaged in place
        outcome(lambda: read(file), told=file.name)

`outcome` accepts what the reader gives, or the project's error in one line that names the file; nothing else.
"""

import contextlib
import os
import shutil
import signal
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from di4c.errors import Di4CError

SECONDS = 20
"""What a reader of a small file may take before it counts as hanging."""

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"


def damages() -> list:
    """The names of all damages as parameters of a test; those outside the quick subset are marked slow."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in DAMAGES]


def damage(file: Path, name: str) -> None:
    """Damages a good file in place. Skips the test where this machine cannot make the damage."""
    DAMAGES[name](file)


def outcome(read: Callable[[], Any], *, told: str | tuple[str, ...]) -> Any:
    """What `read` returns, or the project's error; fails on a foreign exception, a hang, several lines, or a nameless file.

    told: what the message must hold, one of these (the file's name; a folder's, where that is what cannot be read).
    """
    with _deadline(SECONDS):
        try:
            return read()
        except Di4CError as error:
            message = str(error)
            names = (told,) if isinstance(told, str) else told
            assert "\n" not in message, f"more than one line: {message!r}"
            assert any(name in message for name in names), f"names none of {names}: {message!r}"
            return error


@contextlib.contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"the reader hangs: {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A damage that changes a file's bytes."""

    def apply(file: Path) -> None:
        file.write_bytes(change(file.read_bytes()))

    return apply


def _instead(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """A damage that puts something that is no plain file in a file's place."""

    def apply(file: Path) -> None:
        file.unlink()
        make(file)

    return apply


def _socket(file: Path) -> None:
    before = Path.cwd()
    os.chdir(file.parent)  # a socket's whole path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(file.name)
    finally:
        os.chdir(before)


def _loop_of_links(file: Path) -> None:
    other = file.with_name(f"{file.name}.other")
    file.symlink_to(other.name)
    other.symlink_to(file.name)


def _no_permission(file: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads files without permission")
    file.chmod(0)


def _zipped(file: Path) -> None:
    packed = file.with_name(f"{file.name}.packed")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(file, file.name)
    shutil.move(packed, file)


def _noise(content: bytes) -> bytes:
    """Bytes that look random, the same at every call."""
    return bytes((i * 197 + (i >> 3) * 31 + 91) % 256 for i in range(max(len(content), 64)))


def _flipped(content: bytes, start: float, stop: float) -> bytes:
    first, last = int(len(content) * start), max(int(len(content) * stop), 1)
    return content[:first] + bytes(byte ^ 0x5A for byte in content[first:last]) + content[last:]


def _as_text(content: bytes, encoding: str) -> bytes:
    return content.decode("latin-1").encode(encoding, errors="replace")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": _bytes(lambda content: b""),
    "one byte": _bytes(lambda content: content[:1]),
    "cut in the head": _bytes(lambda content: content[:10]),
    "cut in the middle": _bytes(lambda content: content[: len(content) // 2]),
    "last byte missing": _bytes(lambda content: content[:-1]),
    "tail of zero bytes": _bytes(
        lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
    ),
    "zero bytes": _bytes(lambda content: bytes(max(len(content), 64))),
    "wrong magic": _bytes(lambda content: b"\x89WRONG\r\n" + content[8:]),
    "head flipped": _bytes(lambda content: _flipped(content, 0.0, 0.1)),
    "middle flipped": _bytes(lambda content: _flipped(content, 0.4, 0.6)),
    "tail flipped": _bytes(lambda content: _flipped(content, 0.9, 1.0)),
    "noise": _bytes(_noise),
    "garbage behind": _bytes(lambda content: content + _noise(content)),
    "garbage before": _bytes(lambda content: _noise(content[:32]) + content),
    "twice": _bytes(lambda content: content * 2),
    "line ends changed": _bytes(lambda content: content.replace(b"\n", b"\r\n")),
    "seven bits": _bytes(lambda content: bytes(byte & 0x7F for byte in content)),
    "UTF-16": _bytes(lambda content: _as_text(content, "utf-16")),
    "not UTF-8": _bytes(lambda content: b"caf\xe9 \xff\xfe\x80 " + content),
    "git-lfs pointer": _bytes(lambda content: LFS_POINTER),
    "a web page": _bytes(lambda content: PAGE),
    "JSON null": _bytes(lambda content: b"null"),
    "JSON nested too deep": _bytes(lambda content: b"[" * 100_000),
    "NaN": _bytes(lambda content: b'{"text": NaN, "vocab": NaN, "model": NaN}'),
    "a zip archive": _zipped,
    "a folder": _instead(lambda file: file.mkdir()),
    "a device": _instead(lambda file: file.symlink_to("/dev/null")),
    "a pipe": _instead(lambda file: os.mkfifo(file)),
    "a socket": _instead(_socket),
    "a link to nothing": _instead(lambda file: file.symlink_to("nowhere")),
    "a loop of links": _instead(_loop_of_links),
    "absent": _instead(lambda file: None),
    "no permission": _no_permission,
}

QUICK = {
    "empty", "cut in the middle", "tail flipped", "noise", "not UTF-8", "git-lfs pointer", "a folder", "a pipe",
    "a loop of links",
}  # fmt: skip
"""The subset of the default tests."""
