"""Every source of images: what it gives, and the one line that says what is wrong with it."""

import gc
import gzip
import hashlib
import io
import os
import pickle
import shutil
import struct
import sys
import tarfile
import threading
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pooch
import pytest
from PIL import Image

from pipeline.data import folders
from pipeline.data.images import decode
from pipeline.data.sources import RawDataset, cifar10, digits
from pipeline.shared.errors import PipelineError

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


def archive_with(changed: dict[str, bytes | str | None]) -> bytes:
    """A small archive in the official layout. A changed member that is a text is a link; None is left out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (MEMBERS | changed).items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            elif content is not None:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), 1, mtime=0)  # the same bytes in every process that collects tests


ARCHIVE = archive_with({})
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


class Server(ThreadingHTTPServer):
    """Serves the archive well or badly, depending on the path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests: Counter[str] = Counter()

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_port}/{path}"


class Answer(BaseHTTPRequestHandler):
    server: Server
    bodies: ClassVar = {
        "good": ARCHIVE,
        "flaky": ARCHIVE,
        "truncated": ARCHIVE[:1000],
        "corrupt": CORRUPT,
        "hostile": HOSTILE,
    }

    def do_GET(self) -> None:
        path = self.path.strip("/")
        self.server.requests[path] += 1
        if path == "dropping" or (path == "flaky" and self.server.requests[path] <= 2):
            self.close_connection = True
        elif body := self.bodies.get(path):
            self.send_response(200)
            self.send_header("Content-Length", str(len(ARCHIVE if path == "truncated" else body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Pooch does not close failed responses
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
        gc.collect()


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "download"


def get(downloads: Path, *archives: str, sha256: str = SHA256) -> RawDataset:
    return cifar10(list(archives), sha256, downloads, waits=0.01)


def error_of(action: Callable[[], Any]) -> str:
    """The error that an action raises, in one line."""
    with pytest.raises(PipelineError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def error_without_archive(downloads: Path, *archives: str) -> str:
    """The error if no archive is intact. It names each and the ways out, and nothing is left behind."""
    message = error_of(lambda: get(downloads, *archives))
    for expected in (*archives, "data.archives in params.yaml", "data.source to digits"):
        assert expected in message
    assert names(downloads) == []
    return message


def from_archive(folder: Path, content: bytes) -> RawDataset:
    """Read a local archive with the expected digest."""
    path = folder / "local.tar.gz"
    path.write_bytes(content)
    return get(folder / "download", str(path), sha256=hashlib.sha256(content).hexdigest())


def assert_refused(folder: Path, content: bytes, reason: str) -> None:
    message = error_of(lambda: from_archive(folder, content))
    assert message.startswith(f"{folder / 'local.tar.gz'}: not CIFAR-10's archive: ")
    assert reason in message
    assert "data.archives" in message


# CIFAR-10: the content of the archive


@pytest.mark.parametrize("content", [ARCHIVE, gzip.decompress(ARCHIVE)], ids=["gzipped", "plain"])
def test_an_archive_gives_images_labels_batches_and_classes(tmp_path: Path, content: bytes) -> None:
    raw = from_archive(tmp_path, content)
    assert (str(raw.train_images.dtype), raw.train_images.shape) == ("uint8", (100, 32, 32, 3))
    assert (str(raw.test_images.dtype), raw.test_images.shape) == ("uint8", (20, 32, 32, 3))
    assert {raw.train_labels.dtype, raw.train_batches.dtype, raw.test_labels.dtype} == {np.dtype(np.int64)}
    assert raw.train_labels.tolist() == [label for name in FILES[:5] for label in LABELS[name]]
    assert raw.test_labels.tolist() == LABELS["test_batch"]
    assert raw.train_batches.tolist() == [n for n in range(5) for _ in range(20)]
    assert raw.classes == [name.decode() for name in CLASSES]


def test_pixels_are_planes_of_red_green_and_blue_row_by_row(tmp_path: Path) -> None:
    raw = from_archive(tmp_path, ARCHIVE)
    for image, pixels in (
        (raw.train_images[27], PIXELS["data_batch_2"][7]),
        (raw.test_images[19], PIXELS["test_batch"][19]),
    ):
        for row in range(32):
            for column in range(32):
                planes = [pixels[1024 * plane + 32 * row + column] for plane in range(3)]
                assert image[row, column].tolist() == planes


# CIFAR-10: finding the archive


def test_an_archive_is_downloaded_once_and_again_if_it_is_damaged(server: Server, downloads: Path) -> None:
    for _ in range(2):
        assert len(get(downloads, server.url("good")).train_labels) == 100
        assert server.requests["good"] == 1
    (downloads / KEPT).write_bytes(b"damaged")
    get(downloads, server.url("good"))
    assert names(downloads) == [KEPT]
    assert (downloads / KEPT).read_bytes() == ARCHIVE


def test_a_dropped_connection_is_tried_again(server: Server, downloads: Path) -> None:
    assert len(get(downloads, server.url("flaky")).train_labels) == 100
    assert server.requests["flaky"] == 3
    assert names(downloads) == [KEPT]


@pytest.mark.parametrize(
    ("path", "times", "reason"),
    [
        ("truncated", 4, "1000 bytes read"),
        ("dropping", 4, "Connection aborted"),
        ("corrupt", 1, SHA256),
        ("corrupt", 1, hashlib.sha256(CORRUPT).hexdigest()),
        ("missing", 1, "404"),
    ],
)
def test_a_bad_download_is_refused(
    server: Server, downloads: Path, path: str, times: int, reason: str
) -> None:
    assert reason in error_without_archive(downloads, server.url(path))
    assert server.requests.total() == times


def test_a_url_without_an_answer_is_refused(downloads: Path) -> None:
    assert "refused" in error_without_archive(downloads, UNUSED)
    error_without_archive(downloads, "http://", "http://[")


def test_a_bad_local_archive_is_refused_and_kept(tmp_path: Path, downloads: Path) -> None:
    local = tmp_path / "local.tar.gz"
    local.write_bytes(CORRUPT)
    message = error_without_archive(downloads, str(local), "missing.tar.gz")
    assert f"expected SHA-256 {SHA256}, received {hashlib.sha256(CORRUPT).hexdigest()}" in message
    assert "missing.tar.gz (no such file)" in message
    assert local.read_bytes() == CORRUPT


def test_the_first_good_archive_is_used(server: Server, tmp_path: Path, downloads: Path) -> None:
    local = tmp_path / "local.tar.gz"
    local.write_bytes(ARCHIVE)
    bad = [UNUSED, server.url("corrupt"), "missing.tar.gz"]
    assert len(get(downloads, *bad, str(local), server.url("good")).train_labels) == 100
    assert server.requests == {"corrupt": 1}
    assert names(downloads) == []
    assert len(get(downloads, *bad, server.url("good"), str(local)).train_labels) == 100
    assert names(downloads) == [KEPT]


@pytest.mark.parametrize("archives", [["good"], ["missing", "corrupt", "dropping"]])
@pytest.mark.parametrize("password", ["swordfish", "sword@fish"])
def test_credentials_in_a_url_are_not_printed(
    server: Server,
    downloads: Path,
    archives: list[str],
    password: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pooch.get_logger().handlers[0], "stream", sys.stderr)
    try:
        get(downloads, *(server.url(path, f"me:{password}@") for path in archives))
    except PipelineError as error:
        print(error)
    printed = "".join(capsys.readouterr())
    assert "fish" not in printed
    assert all(f"http://***@127.0.0.1:{server.server_port}/{path}" in printed for path in archives)


# CIFAR-10: archives with the right digest and the wrong content


@pytest.mark.parametrize(
    "content",
    [
        b"no tar at all",
        ARCHIVE[: len(ARCHIVE) // 2],
        ARCHIVE[:200_000] + bytes(100_000) + ARCHIVE[300_000:],
    ],
    ids=["no tar", "cut off", "damaged"],
)
def test_an_archive_that_cannot_be_unpacked_is_refused(tmp_path: Path, content: bytes) -> None:
    assert_refused(tmp_path, content, "")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("data_batch_3", None, "lacks data_batch_3"),
        ("test_batch", None, "lacks test_batch"),
        ("batches.meta", None, "lacks batches.meta"),
        ("data_batch_2", "/etc/passwd", "is neither a file nor a folder"),
        ("data_batch_2", "data_batch_1", "is neither a file nor a folder"),
        ("data_batch_2", b"", "Ran out of input"),
        ("data_batch_2", b"no pickle", "invalid load key"),
        ("data_batch_2", MEMBERS["data_batch_1"][:-100], "truncated"),
        ("data_batch_2", python2_pickle([1, 2]), "list indices"),
        ("data_batch_2", python2_pickle({b"labels": [1]}), "data"),
        ("data_batch_2", batch([1], b"text"), "no attribute 'reshape'"),
        ("data_batch_2", batch([1], np.zeros((1, 100), np.uint8)), "cannot reshape"),
        ("data_batch_2", batch([[0]], np.zeros((1, 3072), np.uint8)), "labels of shape (1, 1)"),
        ("data_batch_2", batch([0, 1], np.zeros((1, 3072), np.uint8)), "labels of shape (2,)"),
        ("data_batch_2", batch([0], np.zeros((1, 3072), np.float64)), "float64 pixels"),
        ("batches.meta", python2_pickle({b"label_names": [b"two\nlines"]}), "must be printable text"),
        ("batches.meta", python2_pickle({b"label_names": [b"\xff"]}), "invalid start byte"),
        ("data_batch_2", batch([b"cat"], np.zeros((1, 3072), np.uint8)), "invalid literal for int"),
    ],
)
def test_a_wrong_member_is_refused(
    tmp_path: Path, name: str, content: bytes | str | None, reason: str
) -> None:
    assert_refused(tmp_path, archive_with({name: content}), reason)


@pytest.mark.parametrize("called", ["posix system", "os system", "builtins eval", "__builtin__ eval"])
def test_a_payload_in_a_batch_is_refused_and_does_not_run(tmp_path: Path, called: str) -> None:
    module, name = called.split()
    trace = tmp_path / "was run"
    argument = f"__import__('os').mkdir({str(trace)!r})" if name == "eval" else f"mkdir '{trace}'"
    payload = f"c{module}\n{name}\n(V{argument}\ntR.".encode()
    pickle.loads(payload)
    trace.rmdir()  # so the payload works if it is allowed
    assert_refused(tmp_path, archive_with({"data_batch_4": payload}), f"{module}.{name} is not allowed")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ({"name": "../../evil"}, "../../evil lies outside the archive"),
        ({"name": "cifar-10-batches-py/../../evil"}, "evil lies outside the archive"),
        ({"name": "/tmp/evil"}, "/tmp/evil lies outside the archive"),
        ({"name": "evil", "kind": tarfile.SYMTYPE, "link": "/etc"}, "evil is neither a file nor a folder"),
        ({"name": "evil", "kind": tarfile.LNKTYPE, "link": "/etc/passwd"}, "neither a file nor a folder"),
        ({"name": "evil", "kind": tarfile.CHRTYPE}, "evil is neither a file nor a folder"),
        ({"name": "evil", "kind": tarfile.BLKTYPE}, "evil is neither a file nor a folder"),
        ({"name": "evil", "kind": tarfile.FIFOTYPE}, "evil is neither a file nor a folder"),
        ({"name": "evil", "size": 2**30}, "more than 268,435,456 bytes"),
        ({"name": "evil", "kind": tarfile.XHDTYPE, "size": 2**30}, "more than 268,435,456 bytes"),
        ({"name": "evil", "kind": tarfile.GNUTYPE_LONGNAME, "size": 2**30}, "more than 268,435,456 bytes"),
    ],
)
def test_a_hostile_member_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: dict[str, Any], reason: str
) -> None:
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    content = with_member(**member)
    tracemalloc.start()
    assert_refused(inner, content, reason)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**29
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [inner / "local.tar.gz"]
    assert not Path("/tmp/evil").exists()


def test_an_additional_file_is_ignored(tmp_path: Path) -> None:
    content = with_member("cifar-10-batches-py/readme.html", size=2**20)
    assert len(from_archive(tmp_path, content).train_labels) == 100


def test_a_hostile_download_is_not_kept(server: Server, downloads: Path) -> None:
    sha256 = hashlib.sha256(HOSTILE).hexdigest()
    message = error_of(lambda: get(downloads, server.url("hostile"), sha256=sha256))
    assert "evil lies outside" in message
    assert names(downloads) == []


# Digits


def test_digits_are_1797_grey_images_and_a_fifth_of_each_class_is_for_the_test() -> None:
    raw = digits()
    for images, labels in ((raw.train_images, raw.train_labels), (raw.test_images, raw.test_labels)):
        assert (str(images.dtype), images.shape) == ("uint8", (len(labels), 32, 32, 3))
        assert labels.dtype == np.int64
        assert (images == images[..., :1]).all()
        assert images.max() == 255
    assert raw.train_batches.tolist() == [0] * 1437
    assert raw.classes == list("0123456789")
    tested = np.bincount(raw.test_labels)
    whole = tested + np.bincount(raw.train_labels)
    assert whole.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (abs(tested - whole / 5) < 1).all()
    assert not {image.tobytes() for image in raw.train_images} & {
        image.tobytes() for image in raw.test_images
    }


# The user's own folders


def save(path: Path, colour: tuple[int, int, int] = (9, 9, 9), size: tuple[int, int] = (32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four PNGs each in train1, train2 and test. The red value of an image is its number."""
    root = tmp_path / "pets"
    for part, folder in enumerate(("train1", "train2", "test")):
        for label, name in enumerate(("cat", "dog")):
            for i in range(4):
                save(root / folder / name / f"{i}.png", (100 * part + 10 * label + i, 0, 99))
    return root


def directory(root: Path, size: int = 32) -> RawDataset:
    return folders.read({path.name: path for path in root.iterdir()}, size)


def numbers(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("size", [32, 48])
def test_train_folders_are_put_one_after_another_with_their_labels(root: Path, size: int) -> None:
    raw = directory(root, size)
    assert (str(raw.train_images.dtype), raw.train_images.shape) == ("uint8", (16, size, size, 3))
    assert raw.train_batches.tolist() == [0] * 8 + [1] * 8
    assert {raw.train_labels.dtype, raw.train_batches.dtype, raw.test_labels.dtype} == {np.dtype(np.int64)}
    assert len(set(raw.train_labels[:4])) == 2  # the classes of a folder are mixed
    assert sorted(numbers(raw.train_images[:8])) == [0, 1, 2, 3, 10, 11, 12, 13]
    assert sorted(numbers(raw.train_images[8:])) == [100, 101, 102, 103, 110, 111, 112, 113]
    assert sorted(numbers(raw.test_images)) == [200, 201, 202, 203, 210, 211, 212, 213]
    assert raw.classes == ["cat", "dog"]
    numbered = numbers(np.concatenate([raw.train_images, raw.test_images]))
    labels = [*raw.train_labels, *raw.test_labels]
    assert labels == [number // 10 % 10 for number in numbered]


@pytest.mark.parametrize("source", ["digits", "directory"])
def test_a_source_is_read_in_the_same_order_every_time(root: Path, source: str) -> None:
    first, again = (asdict(digits() if source == "digits" else directory(root)) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])


def test_a_number_before_a_class_is_dropped(tmp_path: Path) -> None:
    for name in ("001_dog", "002_cat", "plane_4"):
        save(tmp_path / "train" / name / "0.png")
        save(tmp_path / "test" / name / "0.png")
    assert directory(tmp_path).classes == ["dog", "cat", "plane_4"]


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg", "webp"])
def test_an_image_of_any_suffix_is_read_as_serving_reads_it(root: Path, suffix: str) -> None:
    path = root / "test" / "cat" / f"a.{suffix}"
    path.write_bytes(b"")
    gradient = Image.linear_gradient("L").resize((90, 30)).convert("RGB")
    gradient.save(path, {"jpg": "jpeg"}.get(suffix, suffix))
    served = decode(path.read_bytes(), 48)
    assert any((image == served).all() for image in directory(root, 48).test_images)


def test_other_files_and_hidden_folders_are_ignored(root: Path) -> None:
    (root / "train1" / "cat" / "notes.txt").write_text("no image")
    (root / "train1" / ".DS_Store").write_text("no image")
    (root / "train1" / ".ipynb_checkpoints").mkdir()
    assert len(directory(root).train_labels) == 16


def test_all_unreadable_images_are_named(root: Path) -> None:
    whole = (root / "train1" / "cat" / "0.png").read_bytes()
    gif = io.BytesIO()
    Image.new("RGB", (32, 32)).save(gif, "GIF")
    bad = {
        root / "train1" / "cat" / "0.png": b"",
        root / "train1" / "dog" / "1.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        root / "train2" / "cat" / "2.png": whole[: len(whole) - 30],
        root / "test" / "dog" / "3.png": whole[:20],
        root / "test" / "dog" / "4.jpg": whole[:8] + b"\0" * 100,
        root / "test" / "cat" / "5.png": gif.getvalue(),
    }
    for path, content in bad.items():
        path.write_bytes(content)
    message = error_of(lambda: directory(root))
    assert message.startswith("images that cannot be read: ")
    assert all(f"{path} (" in message for path in bad)
    assert str(root / "train1" / "dog" / "0.png") not in message


def in_each(root: Path, name: str) -> None:
    for folder in root.iterdir():
        (folder / name).mkdir()


def drop(root: Path, name: str) -> None:
    for folder in root.iterdir():
        shutil.rmtree(folder / name)


def empty(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()


PROBLEMS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda root: save(root / "train2/bird/0.png"), "lacks: bird (not in train1, test)"),
    (lambda root: empty(root / "train1"), "train1: no image "),
    (lambda root: empty(root / "test"), "test: no image "),
    (
        lambda root: drop(root, "dog"),
        "two or more folders, one for each",
    ),
    (lambda root: in_each(root, "1_cat"), "differ only in their number: cat"),
    (
        lambda root: in_each(root, "001_"),
        "must be printable text; received ''",
    ),
    (lambda root: (root / "test/two\nlines").mkdir(), "names that cannot be printed: "),
    (lambda root: (root / "test/cat" / os.fsdecode(b"\xff.png")).touch(), "names that cannot be printed: "),
    (lambda root: os.mkfifo(root / "test/cat/pipe.png"), "neither files nor folders: "),
    (lambda root: (root / "test/cat/a.png").symlink_to("nowhere"), "neither files nor folders: "),
]


@pytest.mark.parametrize(("change", "reason"), PROBLEMS)
def test_folders_that_cannot_be_used_are_refused(
    root: Path, change: Callable[[Path], Any], reason: str
) -> None:
    change(root)
    message = error_of(lambda: directory(root))
    assert reason in message
    message.encode()  # can be printed
