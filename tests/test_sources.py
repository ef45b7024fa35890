"""Every source of images: what it gives, and that what is wrong with it ends in one line that helps."""

import gc
import gzip
import hashlib
import io
import pickle
import socket
import struct
import tarfile
import threading
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sources import RawDataset, cifar10, digits, directory
from pipeline.errors import PipelineError

CLASSES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
FILES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
PIXELS = {
    name: np.random.default_rng(n).integers(0, 256, (20, 3072), np.uint8) for n, name in enumerate(FILES)
}
LABELS = {name: [(n + i) % 10 for i in range(20)] for n, name in enumerate(FILES)}
KEPT = "cifar-10-python.tar.gz"


def python2_pickle(value: Any) -> bytes:
    """A value as Python 2 pickled it for the official archive, with protocol 2."""

    def encoded(value: Any) -> bytes:
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, bytes):
            return b"T" + struct.pack("<i", len(value)) + value
        if isinstance(value, tuple):
            return b"(" + b"".join(map(encoded, value)) + b"t"
        if isinstance(value, list):
            return b"](" + b"".join(map(encoded, value)) + b"e"
        if isinstance(value, dict):
            return b"}(" + b"".join(encoded(key) + encoded(each) for key, each in value.items()) + b"u"
        dtype = b"cnumpy\ndtype\n" + encoded((b"u1", 0, 1)) + b"R"
        dtype += encoded((3, b"|", None, None, None, -1, -1, 0)) + b"b"
        empty = (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
            + encoded((0,))
            + encoded(b"b")
            + b"tR"
        )
        shape, content = encoded(value.shape), encoded(value.tobytes())
        return empty + b"(" + encoded(1) + shape + dtype + encoded(False) + content + b"tb"

    return b"\x80\x02" + encoded(value) + b"."


def members() -> dict[str, bytes | str]:
    """The files of a small archive in the official layout, by name; a text stands for a link to it."""
    batches: dict[str, bytes | str] = {
        name: python2_pickle({b"batch_label": b"a batch", b"labels": LABELS[name], b"data": PIXELS[name]})
        for name in FILES
    }
    return batches | {"batches.meta": python2_pickle({b"label_names": CLASSES, b"num_vis": 3072})}


def archive_of(files: dict[str, bytes | str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def with_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    """A whole archive and behind it one member more; of its `size` zeros, none but a multiple of 2**20."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    zeros = gzip.compress(bytes(2**20)) * (size // 2**20)  # a gzipped file may have several parts
    whole = gzip.decompress(archive_of(members())).rstrip(b"\0")
    whole += bytes(-len(whole) % tarfile.BLOCKSIZE)
    return gzip.compress(whole + member.tobuf()) + zeros + gzip.compress(bytes(tarfile.RECORDSIZE))


ARCHIVE = archive_of(members())
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
HOSTILE = with_member("../../evil")


class Server(ThreadingHTTPServer):
    """Serves the archive well or badly: each path of `Answer` is one way."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: Counter[str] = Counter()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.strip("/")
        self.server.asked[path] += 1
        if path == "dropping" or (path == "flaky" and self.server.asked[path] <= 2):
            self.close_connection = True
        elif path in {"good", "flaky", "truncated", "corrupt", "hostile"}:
            bodies = {"truncated": ARCHIVE[:1000], "corrupt": ARCHIVE[:-1] + b"?", "hostile": HOSTILE}
            body = bodies.get(path, ARCHIVE)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body if path == "hostile" else ARCHIVE)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Pooch does not close answers that fail
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
        gc.collect()


@pytest.fixture
def nobody() -> str:
    """A URL where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/archive"


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "download"


def get(downloads: Path, *archives: str, sha256: str = SHA256) -> RawDataset:
    return cifar10(list(archives), sha256, downloads, waits=0.01)


def problem(action: Callable[[], Any]) -> str:
    """What is said about a source that is wrong, always in one line."""
    with pytest.raises(PipelineError) as caught:
        action()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def assert_no_archive(downloads: Path, *archives: str) -> str:
    """None of `archives` gives the data: each is named, ways out too, and nothing is left behind."""
    message = problem(lambda: get(downloads, *archives))
    for expected in (*archives, "data.archives in params.yaml", "data.source to digits"):
        assert expected in message
    assert names(downloads) == []
    return message


def from_archive(folder: Path, content: bytes) -> RawDataset:
    """Read an archive whose digest is the expected one."""
    path = folder / "local.tar.gz"
    path.write_bytes(content)
    return get(folder / "download", str(path), sha256=hashlib.sha256(content).hexdigest())


# CIFAR-10: what the archive holds


@pytest.mark.parametrize("content", [ARCHIVE, gzip.decompress(ARCHIVE)], ids=["gzipped", "plain"])
def test_archive_gives_images_labels_batches_and_classes(tmp_path: Path, content: bytes) -> None:
    raw = from_archive(tmp_path, content)
    assert (str(raw.train_images.dtype), raw.train_images.shape) == ("uint8", (100, 32, 32, 3))
    assert (str(raw.test_images.dtype), raw.test_images.shape) == ("uint8", (20, 32, 32, 3))
    assert {raw.train_labels.dtype, raw.train_batches.dtype, raw.test_labels.dtype} == {np.dtype(np.int64)}
    assert raw.train_labels.tolist() == [label for name in FILES[:5] for label in LABELS[name]]
    assert raw.test_labels.tolist() == LABELS["test_batch"]
    assert raw.train_batches.tolist() == [batch for batch in range(5) for _ in range(20)]
    assert raw.classes == [name.decode() for name in CLASSES]


def test_pixels_are_planes_of_red_green_and_blue_row_by_row(tmp_path: Path) -> None:
    raw = from_archive(tmp_path, ARCHIVE)
    for image, pixels, label, expected in (
        (raw.train_images[27], PIXELS["data_batch_2"][7], raw.train_labels[27], LABELS["data_batch_2"][7]),
        (raw.test_images[19], PIXELS["test_batch"][19], raw.test_labels[19], LABELS["test_batch"][19]),
    ):
        assert label == expected
        for row in range(32):
            for column in range(32):
                planes = [pixels[1024 * plane + 32 * row + column] for plane in range(3)]
                assert image[row, column].tolist() == planes


# CIFAR-10: where the archive comes from


def test_archive_is_downloaded_whole_and_kept(server: Server, downloads: Path) -> None:
    assert len(get(downloads, server.url("good")).train_labels) == 100
    assert names(downloads) == [KEPT]
    assert (downloads / KEPT).read_bytes() == ARCHIVE


def test_kept_archive_is_not_downloaded_again(server: Server, downloads: Path) -> None:
    get(downloads, server.url("good"))
    get(downloads, server.url("good"))
    assert server.asked["good"] == 1


def test_damaged_kept_archive_is_downloaded_again(server: Server, downloads: Path) -> None:
    downloads.mkdir()
    (downloads / KEPT).write_bytes(b"damaged")
    get(downloads, server.url("good"))
    assert (downloads / KEPT).read_bytes() == ARCHIVE


def test_connection_that_drops_twice_is_tried_again(server: Server, downloads: Path) -> None:
    assert len(get(downloads, server.url("flaky")).train_labels) == 100
    assert server.asked["flaky"] == 3
    assert names(downloads) == [KEPT]


@pytest.mark.parametrize(
    ("path", "times"),
    [("truncated", 4), ("dropping", 4), ("corrupt", 1), ("not there", 1)],
)
def test_bad_download_is_refused(server: Server, downloads: Path, path: str, times: int) -> None:
    assert_no_archive(downloads, server.url(path))
    assert server.asked.total() == times


def test_wrong_digest_of_a_download_is_told(server: Server, downloads: Path) -> None:
    message = assert_no_archive(downloads, server.url("corrupt"))
    assert SHA256 in message
    assert hashlib.sha256(ARCHIVE[:-1] + b"?").hexdigest() in message


def test_missing_page_is_told(server: Server, downloads: Path) -> None:
    assert "404" in assert_no_archive(downloads, server.url("nowhere"))


def test_address_where_nothing_listens_is_refused(nobody: str, downloads: Path) -> None:
    assert "refused" in assert_no_archive(downloads, nobody)


def test_address_that_is_none_is_refused(downloads: Path) -> None:
    assert_no_archive(downloads, "http://", "http://[")


def test_all_archives_that_were_tried_are_named(server: Server, nobody: str, downloads: Path) -> None:
    assert_no_archive(
        downloads, server.url("truncated"), nobody, "no such file.tar.gz", server.url("corrupt")
    )


def test_good_archive_after_bad_ones_is_taken(server: Server, nobody: str, downloads: Path) -> None:
    archives = [nobody, server.url("corrupt"), "no such file.tar.gz", server.url("good")]
    assert len(get(downloads, *archives).train_labels) == 100
    assert names(downloads) == [KEPT]


def test_archives_after_the_first_good_one_are_not_asked_for(
    server: Server, tmp_path: Path, downloads: Path
) -> None:
    local = tmp_path / "local.tar.gz"
    local.write_bytes(ARCHIVE)
    assert len(get(downloads, str(local), server.url("good")).train_labels) == 100
    assert server.asked.total() == 0
    assert names(downloads) == []


def test_missing_local_archive_is_refused(tmp_path: Path, downloads: Path) -> None:
    assert "no such file" in assert_no_archive(downloads, str(tmp_path / "missing.tar.gz"))


def test_wrong_digest_of_a_local_archive_is_told(tmp_path: Path, downloads: Path) -> None:
    local = tmp_path / "local.tar.gz"
    local.write_bytes(b"another")
    message = assert_no_archive(downloads, str(local))
    assert SHA256 in message
    assert hashlib.sha256(b"another").hexdigest() in message
    assert local.read_bytes() == b"another"


# CIFAR-10: archives with the right digest that hold something else


def test_archive_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    message = problem(lambda: from_archive(tmp_path, b"no tar at all"))
    assert "local.tar.gz: not CIFAR-10's archive: " in message
    assert "data.archives" in message


def test_archive_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    assert "not CIFAR-10's archive" in problem(lambda: from_archive(tmp_path, ARCHIVE[: len(ARCHIVE) // 2]))


def test_archive_that_is_damaged_inside_is_refused(tmp_path: Path) -> None:
    half = len(ARCHIVE) // 2
    content = ARCHIVE[:half] + bytes(100_000) + ARCHIVE[half + 100_000 :]
    assert "not CIFAR-10's archive" in problem(lambda: from_archive(tmp_path, content))


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_archive_without_a_member_is_refused(tmp_path: Path, name: str) -> None:
    files = members()
    del files[name]
    assert name in problem(lambda: from_archive(tmp_path, archive_of(files)))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "data_batch_1"])
def test_member_that_is_a_link_is_refused(tmp_path: Path, target: str) -> None:
    content = archive_of(members() | {"data_batch_2": target})
    assert "not CIFAR-10's archive" in problem(lambda: from_archive(tmp_path, content))


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"no pickle",
        b"\x80\x02",
        members()["data_batch_1"][:-100],
        python2_pickle([1, 2]),
        python2_pickle({b"labels": [1]}),
        python2_pickle({b"labels": [1], b"data": b"text"}),
        python2_pickle({b"labels": [1], b"data": np.zeros((1, 100), np.uint8)}),
        python2_pickle({b"labels": [b"cat"], b"data": np.zeros((1, 3072), np.uint8)}),
    ],
    ids=[
        "empty",
        "text",
        "header only",
        "cut off",
        "no mapping",
        "no data",
        "data no array",
        "half an image",
        "label no number",
    ],
)
def test_batch_that_is_none_is_refused(tmp_path: Path, batch: bytes) -> None:
    content = archive_of(members() | {"data_batch_2": batch})
    assert "not CIFAR-10's archive" in problem(lambda: from_archive(tmp_path, content))


@pytest.mark.parametrize("called", ["posix system", "os system", "builtins eval", "__builtin__ eval"])
def test_payload_in_a_batch_is_refused_and_not_run(tmp_path: Path, called: str) -> None:
    module, name = called.split()
    trace = tmp_path / "was run"
    argument = f"__import__('os').mkdir({str(trace)!r})" if name == "eval" else f"mkdir '{trace}'"
    payload = f"c{module}\n{name}\n(V{argument}\ntR.".encode()
    pickle.loads(payload)
    trace.rmdir()  # so the payload works where it is let
    content = archive_of(members() | {"data_batch_4": payload})
    assert f"{module}.{name} is not allowed" in problem(lambda: from_archive(tmp_path, content))
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
        ({"name": "evil", "size": 2**30}, "evil has 1,073,741,824 bytes; at most 268,435,456"),
        ({"name": "evil", "kind": tarfile.XHDTYPE, "size": 2**30}, "a header has 1073741824 bytes"),
        ({"name": "evil", "kind": tarfile.GNUTYPE_LONGNAME, "size": 2**30}, "a header has 1073741824 bytes"),
    ],
)
def test_hostile_member_behind_a_whole_archive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: dict[str, Any], reason: str
) -> None:
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    content = with_member(**member)
    tracemalloc.start()
    message = problem(lambda: from_archive(inner, content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "local.tar.gz: not CIFAR-10's archive: " in message
    assert reason in message
    assert peak < 2**26
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [inner / "local.tar.gz"]
    assert not Path("/tmp/evil").exists()


def test_an_archive_with_one_file_more_is_read(tmp_path: Path) -> None:
    content = with_member("cifar-10-batches-py/readme.html", size=2**20)
    assert len(from_archive(tmp_path, content).train_labels) == 100


def test_a_hostile_download_is_not_kept(server: Server, downloads: Path) -> None:
    sha256 = hashlib.sha256(HOSTILE).hexdigest()
    assert "evil lies outside" in problem(lambda: get(downloads, server.url("hostile"), sha256=sha256))
    assert names(downloads) == []


# Digits


@pytest.fixture(scope="module")
def handwritten() -> RawDataset:
    return digits()


def test_digits_are_1797_colour_images_of_32_by_32(handwritten: RawDataset) -> None:
    for images, labels in (
        (handwritten.train_images, handwritten.train_labels),
        (handwritten.test_images, handwritten.test_labels),
    ):
        assert (str(images.dtype), images.shape) == ("uint8", (len(labels), 32, 32, 3))
        assert labels.dtype == np.int64
        assert (images == images[..., :1]).all()
        assert images.max() == 255
    assert (len(handwritten.train_labels), len(handwritten.test_labels)) == (1437, 360)
    assert handwritten.train_batches.tolist() == [0] * 1437
    assert handwritten.classes == list("0123456789")


def test_a_fifth_of_each_digit_tests(handwritten: RawDataset) -> None:
    tested = np.bincount(handwritten.test_labels)
    whole = tested + np.bincount(handwritten.train_labels)
    assert whole.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (abs(tested - whole / 5) < 1).all()


def test_no_digit_is_both_in_training_and_in_test(handwritten: RawDataset) -> None:
    train = {image.tobytes() for image in handwritten.train_images}
    assert not train & {image.tobytes() for image in handwritten.test_images}


def test_digits_are_the_same_each_time(handwritten: RawDataset) -> None:
    for name, value in asdict(digits()).items():
        np.testing.assert_array_equal(value, getattr(handwritten, name))


# The user's own folders

RED, GREEN, BLUE = (200, 20, 10), (10, 180, 30), (20, 30, 220)


def save(
    path: Path, colour: Any = RED, mode: str = "RGB", size: tuple[int, int] = (32, 32), **how: Any
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **how)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four PNGs each, whose red value numbers them, in train1, train2 and test."""
    root = tmp_path / "pets"
    for part, folder in enumerate(("train1", "train2", "test")):
        for label, name in enumerate(("cat", "dog")):
            for i in range(4):
                save(root / folder / name / f"{i}.png", (100 * part + 10 * label + i, 0, 99))
    return root


def numbers(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_train_folders_are_put_one_after_another(root: Path) -> None:
    raw = directory(root)
    assert (str(raw.train_images.dtype), raw.train_images.shape) == ("uint8", (16, 32, 32, 3))
    assert raw.train_batches.tolist() == [0] * 8 + [1] * 8
    assert {raw.train_labels.dtype, raw.train_batches.dtype, raw.test_labels.dtype} == {np.dtype(np.int64)}
    assert sorted(numbers(raw.train_images[:8])) == [0, 1, 2, 3, 10, 11, 12, 13]
    assert sorted(numbers(raw.train_images[8:])) == [100, 101, 102, 103, 110, 111, 112, 113]
    assert sorted(numbers(raw.test_images)) == [200, 201, 202, 203, 210, 211, 212, 213]
    assert raw.classes == ["cat", "dog"]


def test_every_image_keeps_its_label(root: Path) -> None:
    raw = directory(root)
    numbered = numbers(np.concatenate([raw.train_images, raw.test_images]))
    labels = [*raw.train_labels, *raw.test_labels]
    assert labels == [number // 10 % 10 for number in numbered]


def test_classes_are_mixed_within_a_folder_the_same_way_each_time(root: Path) -> None:
    raw = directory(root)
    assert len(set(raw.train_labels[:4])) == 2
    for name, value in asdict(directory(root)).items():
        np.testing.assert_array_equal(value, getattr(raw, name))


def test_one_train_folder_is_one_batch(tmp_path: Path) -> None:
    for path in ("train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png"):
        save(tmp_path / path)
    assert directory(tmp_path).train_batches.tolist() == [0, 0]


def test_number_before_a_class_is_dropped(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        for name in ("001_dog", "002_cat", "plane_4"):
            save(tmp_path / folder / name / "0.png")
    assert directory(tmp_path).classes == ["dog", "cat", "plane_4"]


def only_image(root: Path, name: str) -> np.ndarray:
    """The one training image of the first class, `train/a/NAME`, as it is read."""
    assert (root / "train" / "a" / name).is_file()
    for path in ("train/b/0.png", "test/a/0.png", "test/b/0.png"):
        save(root / path)
    raw = directory(root)
    return raw.train_images[raw.train_labels == 0][0].astype(int)


@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("a.png", "RGB", RED, RED),
        ("a.jpg", "RGB", RED, RED),
        ("a.jpeg", "RGB", GREEN, GREEN),
        ("A.JPG", "RGB", BLUE, BLUE),
        ("A.PNG", "RGB", BLUE, BLUE),
        ("grey.png", "L", 77, (77, 77, 77)),
        ("grey.jpg", "L", 77, (77, 77, 77)),
        ("bit.png", "1", 1, (255, 255, 255)),
        ("grey_alpha.png", "LA", (77, 255), (77, 77, 77)),
        ("alpha.png", "RGBA", (*GREEN, 255), GREEN),
        ("palette.png", "P", BLUE, BLUE),
        ("print.jpg", "CMYK", (0, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_image_of_any_kind_comes_as_red_green_and_blue(
    tmp_path: Path, name: str, mode: str, colour: Any, expected: tuple[int, int, int]
) -> None:
    save(tmp_path / "train" / "a" / name, colour, mode)
    image = only_image(tmp_path, name)
    assert image.shape == (32, 32, 3)
    assert abs(image - expected).max() <= (3 if name.lower().endswith("g") and "j" in name.lower() else 0)


def test_grey_image_of_16_bits_keeps_its_brightness(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a" / "deep.png", 0x4D00, "I;16")
    assert abs(only_image(tmp_path, "deep.png") - 0x4D).max() <= 1


def test_palette_image_with_transparent_colours_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train" / "a" / "palette.png"
    save(path, BLUE, "P", transparency=b"\xff\x80")
    assert only_image(tmp_path, path.name)[0, 0].tolist() == list(BLUE)


@pytest.mark.parametrize("size", [(64, 64), (8, 8), (90, 30), (1, 1)])
def test_image_of_any_size_is_resized(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "train" / "a" / "a.png", GREEN, size=size)
    assert (only_image(tmp_path, "a.png") == GREEN).all()


def test_photograph_is_turned_upright(tmp_path: Path) -> None:
    on_its_side = Image.new("RGB", (64, 64), RED)
    on_its_side.paste(BLUE, (0, 0, 32, 64))  # blue on the left, which is the top of the upright image
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "train" / "a" / "camera.jpg"
    path.parent.mkdir(parents=True)
    on_its_side.save(path, exif=exif, quality=95)
    image = only_image(tmp_path, path.name)
    assert abs(image[:14] - BLUE).max() <= 5
    assert abs(image[18:] - RED).max() <= 5


def test_files_that_are_no_images_by_name_are_left_alone(root: Path) -> None:
    (root / "train1" / "cat" / "notes.txt").write_text("no image")
    (root / "train1" / ".DS_Store").write_text("no image")
    assert len(directory(root).train_labels) == 16


def test_all_images_that_cannot_be_read_are_named(root: Path) -> None:
    whole = (root / "train1" / "cat" / "0.png").read_bytes()
    bad = {
        root / "train1" / "cat" / "0.png": b"",
        root / "train1" / "dog" / "1.png": b"no image",
        root / "train2" / "cat" / "2.png": whole[: len(whole) - 30],
        root / "test" / "dog" / "3.png": whole[:20],
        root / "test" / "dog" / "4.jpg": whole[:8] + b"\0" * 100,
    }
    for path, content in bad.items():
        path.write_bytes(content)
    message = problem(lambda: directory(root))
    assert message.startswith(f"{root}: images that cannot be read: ")
    assert all(str(path) in message for path in bad)
    assert str(root / "train1" / "dog" / "0.png") not in message


def test_classes_that_some_folder_lacks_are_named(root: Path) -> None:
    save(root / "train2" / "bird" / "0.png")
    save(root / "test" / "fish" / "0.png")
    message = problem(lambda: directory(root))
    assert "bird (not in train1, test)" in message
    assert "fish (not in train1, train2)" in message
    assert "cat" not in message


@pytest.mark.parametrize("name", ["train1", "train2", "test"])
def test_folder_without_images_is_refused(root: Path, name: str) -> None:
    for path in (root / name).rglob("*.png"):
        path.unlink()
    assert name in problem(lambda: directory(root))


def test_classes_that_differ_in_their_number_only_are_refused(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        for name in ("001_cat", "002_cat"):
            save(tmp_path / folder / name / "0.png")
    assert "cat" in problem(lambda: directory(tmp_path))


def test_missing_test_folder_is_told(root: Path) -> None:
    (root / "test").rename(root / "tests")
    assert "needs train*/CLASS and test/CLASS" in problem(lambda: directory(root))


def test_missing_train_folder_is_told(tmp_path: Path) -> None:
    save(tmp_path / "test" / "cat" / "0.png")
    assert "needs train*/CLASS and test/CLASS" in problem(lambda: directory(tmp_path))


def test_missing_root_is_told(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in problem(lambda: directory(tmp_path / "nowhere"))


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "0.png")
    save(tmp_path / "test" / "cat" / "0.png")
    assert "one class only" in problem(lambda: directory(tmp_path))
