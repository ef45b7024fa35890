"""Every source of images: what it gives, and the one line that says what is wrong with it."""

import gc
import gzip
import hashlib
import io
import pickle
import struct
import sys
import tarfile
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pooch
import pytest

from pipeline.stages.fetch import cifar10
from pipeline.stages.fetch.sources import RawDataset
from tests.conftest import contents, refusal
from tests.servers import answering

CLASSES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
FILES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
PIXELS = {
    name: np.random.default_rng(n).integers(0, 256, (20, 3072), np.uint8) for n, name in enumerate(FILES)
}
LABELS = {name: [(n + i) % 10 for i in range(20)] for n, name in enumerate(FILES)}
KEPT = "cifar-10-python.tar.gz"
UNUSED = "http://127.0.0.1:9/archive"  # nothing listens there


class Python2Pickler(pickle._Pickler):
    """Pickles text and bytes as strings of Python 2, as in the official archive."""

    def save_string(self: Any, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(content)) + content)

    dispatch: ClassVar[Any] = pickle._Pickler.dispatch | {str: save_string, bytes: save_string}


def python2_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def batch(labels: Any, data: Any) -> bytes:
    return python2_pickle({b"batch_label": b"a batch", b"labels": labels, b"data": data})


MEMBERS = {name: batch(LABELS[name], PIXELS[name]) for name in FILES}
MEMBERS["batches.meta"] = python2_pickle({b"label_names": CLASSES, b"num_vis": 3072})


def archive_with(changed: str = "", new: bytes | str | None = None) -> bytes:
    """A small archive in the official layout. One member may be other bytes, a link (text) or missing."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, old in MEMBERS.items():
            content = new if name == changed else old
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            elif content is not None:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), 1, mtime=0)  # the same bytes in every process that collects tests


ARCHIVE = archive_with()
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
CORRUPT = ARCHIVE[:-1] + b"?"


def with_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    """A valid archive followed by one more member of `size` zeros, which must be a multiple of 2**20."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    zeros = gzip.compress(bytes(2**20)) * (size // 2**20)  # a gzipped file may have several parts
    whole = gzip.decompress(ARCHIVE).rstrip(b"\0")
    whole += bytes(-len(whole) % tarfile.BLOCKSIZE)
    return gzip.compress(whole + member.tobuf(), 1) + zeros + gzip.compress(bytes(tarfile.RECORDSIZE))


HOSTILE = with_member("../../evil")
BODIES = {"good": ARCHIVE, "flaky": ARCHIVE, "corrupt": CORRUPT, "hostile": HOSTILE}
BODIES["truncated"] = ARCHIVE[:1000]


class Answer(BaseHTTPRequestHandler):
    """Serves the archive well or badly, depending on the path, and counts the requests."""

    requests: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        path = self.path.strip("/")
        self.requests[path] += 1
        if path == "endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # the client has hung up
                while True:
                    self.wfile.write(bytes(2**16))
        if path == "dropping" or (path == "flaky" and self.requests[path] <= 2):
            self.close_connection = True
            return
        body = BODIES.get(path, b"")
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(ARCHIVE if path == "truncated" else body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of archives."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # Pooch waits for seconds before it tries again
    Answer.requests.clear()
    with warnings.catch_warnings(), answering(Answer) as address:
        warnings.simplefilter("ignore", ResourceWarning)  # Pooch does not close failed responses
        yield address
        gc.collect()


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "download"


def get(downloads: Path, *archives: str, sha256: str = SHA256) -> RawDataset:
    return cifar10.read(list(archives), sha256, downloads)


def error_without_archive(downloads: Path, *archives: str) -> str:
    """The error if no archive is intact. It names each and the ways out, and nothing is left behind."""
    message = refusal(get, downloads, *archives)
    for expected in (*archives, "data.archives in params.yaml", "data.source to digits"):
        assert expected in message
    assert not contents(downloads)
    return message


def from_archive(folder: Path, content: bytes) -> RawDataset:
    """Read a local archive with the expected digest."""
    path = folder / "local.tar.gz"
    path.write_bytes(content)
    return get(folder / "download", str(path), sha256=hashlib.sha256(content).hexdigest())


def assert_refused(folder: Path, content: bytes, reason: str) -> None:
    message = refusal(from_archive, folder, content)
    assert message.startswith(f"{folder / 'local.tar.gz'}: not CIFAR-10's archive: ")
    assert reason in message
    assert "data.archives" in message


# CIFAR-10: the content of the archive

MORE = with_member("cifar-10-batches-py/readme.html", size=2**20)


@pytest.mark.parametrize("content", [ARCHIVE, MORE], ids=range(2))
def test_an_archive_gives_images_labels_batches_and_classes(tmp_path: Path, content: bytes) -> None:
    raw = from_archive(tmp_path, content)
    planes = np.concatenate(list(PIXELS.values())).reshape(120, 3, 32, 32)
    pixels = np.stack([planes[:, 0], planes[:, 1], planes[:, 2]], axis=-1)
    np.testing.assert_array_equal(raw.train_images, pixels[:100], strict=True)
    np.testing.assert_array_equal(raw.test_images, pixels[100:], strict=True)
    assert [*raw.train_labels, *raw.test_labels] == [label for labels in LABELS.values() for label in labels]
    assert {raw.train_labels.dtype, raw.train_batches.dtype, raw.test_labels.dtype} == {np.dtype(np.int64)}
    assert raw.train_batches.tolist() == [n for n in range(5) for _ in range(20)]
    assert raw.classes == [name.decode() for name in CLASSES]


# CIFAR-10: finding the archive


def test_a_download_is_tried_again_kept_and_repeated_if_it_is_damaged(
    server: str, downloads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for printed in (f"downloading {server}/flaky\n", ""):
        assert len(get(downloads, f"{server}/flaky").train_labels) == 100
        assert Answer.requests["flaky"] == 3
        assert capsys.readouterr().out == printed
    (downloads / KEPT).write_bytes(b"damaged")
    get(downloads, f"{server}/flaky")
    assert contents(downloads) == {KEPT: ARCHIVE}


@pytest.mark.parametrize(
    ("path", "times", "reasons"),
    [
        ("truncated", 4, ["1000 bytes read"]),
        ("dropping", 4, ["Connection aborted"]),
        ("corrupt", 4, [SHA256, hashlib.sha256(CORRUPT).hexdigest()]),
        ("missing", 4, ["404"]),
    ],
)
def test_a_bad_download_is_refused(
    server: str, downloads: Path, path: str, times: int, reasons: list[str]
) -> None:
    message = error_without_archive(downloads, f"{server}/{path}")
    assert all(reason in message for reason in reasons)
    assert Answer.requests.total() == times


def test_an_endless_download_ends(server: str, downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "LIMIT", 2**20)
    message = error_without_archive(downloads, f"{server}/endless")
    assert f"{server}/endless (it has more than 1,048,576 bytes)" in message
    assert Answer.requests.total() == 1


def test_every_archive_that_is_not_intact_is_named_and_a_local_one_kept(
    tmp_path: Path, downloads: Path
) -> None:
    local = tmp_path / "local.tar.gz"
    local.write_bytes(CORRUPT)
    message = error_without_archive(downloads, UNUSED, "http://", "http://[", str(local), "missing.tar.gz")
    assert "refused" in message
    assert f"expected SHA-256 {SHA256}, received {hashlib.sha256(CORRUPT).hexdigest()}" in message
    assert "missing.tar.gz (No such file or directory)" in message
    assert local.read_bytes() == CORRUPT


def test_the_first_good_archive_is_used(server: str, tmp_path: Path, downloads: Path) -> None:
    local = tmp_path / "local.tar.gz"
    local.write_bytes(ARCHIVE)
    bad = [UNUSED, f"{server}/corrupt", "missing.tar.gz"]
    assert len(get(downloads, *bad, str(local), f"{server}/good").train_labels) == 100
    assert Answer.requests == {"corrupt": 4}
    assert not contents(downloads)
    assert len(get(downloads, *bad, f"{server}/good", str(local)).train_labels) == 100
    assert contents(downloads) == {KEPT: ARCHIVE}


def test_credentials_in_a_url_are_not_printed(
    server: str, downloads: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooch.get_logger().handlers[0], "stream", sys.stderr)
    paths, address = ("missing", "corrupt", "dropping", "good"), server.removeprefix("http://")
    *bad, good = (f"http://me:sword@fish@{address}/{path}" for path in paths)
    print(refusal(get, downloads, *bad))
    get(downloads, good)
    printed = "".join(capsys.readouterr())
    assert "fish" not in printed
    assert all(f"http://***@{address}/{path}" in printed for path in paths)


# CIFAR-10: archives with the right digest and the wrong content

NO_FILE = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
LONG_HEADERS = [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME]
WRONG: list[tuple[bytes, str]] = [
    (ARCHIVE[: len(ARCHIVE) // 2], ""),
    (archive_with("data_batch_3", None), "missing data_batch_3"),
    (archive_with("data_batch_2", "data_batch_1"), "is neither a file nor a folder"),
    (gzip.decompress(ARCHIVE), "Not a gzipped file"),
    (HOSTILE, "../../evil lies outside the archive"),
    (with_member("/tmp/evil"), "/tmp/evil lies outside the archive"),
    *((with_member("evil", kind, "/etc"), "evil is neither a file nor a folder") for kind in NO_FILE),
    (with_member("evil", size=2**30), "more than 268,435,456 bytes"),
    *((with_member("evil", kind, size=2**30), "more than 268,435,456 bytes") for kind in LONG_HEADERS),
]


@pytest.mark.parametrize(("content", "reason"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_archive_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    tracemalloc.start()
    assert_refused(inner, content, reason)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**29
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [inner / "local.tar.gz"]
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("called", ["posix system", "builtins eval", "__builtin__ eval"])
def test_a_payload_in_a_batch_is_refused_and_does_not_run(tmp_path: Path, called: str) -> None:
    module, name = called.split()
    trace = tmp_path / "was run"
    argument = f"__import__('os').mkdir({str(trace)!r})" if name == "eval" else f"mkdir '{trace}'"
    payload = f"c{module}\n{name}\n(V{argument}\ntR.".encode()
    pickle.loads(payload)
    trace.rmdir()  # so the payload works if it is allowed
    assert_refused(tmp_path, archive_with("data_batch_4", payload), f"{module}.{name} is not allowed")
    assert not trace.exists()


def test_a_hostile_download_is_not_kept(server: str, downloads: Path) -> None:
    sha256 = hashlib.sha256(HOSTILE).hexdigest()
    assert "evil lies outside" in refusal(lambda: get(downloads, f"{server}/hostile", sha256=sha256))
    assert not contents(downloads)
