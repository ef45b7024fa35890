"""Find a file that is known by its SHA-256, among URLs and local files."""

import io
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pooch

from pipeline.support.digests import file_digest
from pipeline.support.errors import PipelineError, in_a_line, masked

RETRIES = 3  # of a download, after some seconds


def find(sources: Sequence[str], sha256: str, kept: Path, limit: int) -> Path:
    """The first of several URLs or local files that has this SHA-256; a download of it is kept at `kept`.

    A download has at most `limit` bytes, and is not repeated while it is intact. Raises PipelineError with
    every source that was tried and why it failed, without the passwords of URLs.
    """
    failures = []
    for source in sources:
        try:
            if re.match(r"https?://", source):
                return _download(source, sha256, kept, limit)
            if (received := file_digest(Path(source))) == sha256:
                return Path(source)
            raise ValueError(f"expected SHA-256 {sha256}, received {received}")
        except (OSError, ValueError) as error:
            reason = in_a_line(getattr(error, "strerror", None) or error)
            failures.append(masked(f"{source} ({reason})"))
    raise PipelineError(f"tried {'; '.join(failures)}")


def _download(url: str, sha256: str, kept: Path, limit: int) -> Path:
    pooch.get_logger().setLevel("WARNING")  # its message has the password of the URL
    if not kept.is_file():
        print(f"downloading {masked(url)}", flush=True)
    cache = pooch.create(
        kept.parent,
        base_url="",
        registry={kept.name: sha256},
        urls={kept.name: url},
        retry_if_failed=RETRIES,
    )
    return Path(cache.fetch(kept.name, downloader=partial(_get, limit=limit)))


def _get(url: str, path: str, cache: pooch.Pooch, limit: int) -> None:
    with _LimitedFile(path, limit) as file:
        pooch.HTTPDownloader(progressbar=True, timeout=30)(url, file, cache)


class _LimitedFile(io.FileIO):
    """Refuses what an endless answer would fill the disk with."""

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(path, "wb")
        self.limit = limit

    def write(self, content: Any) -> int:
        """Write, unless the file would exceed the limit: an OSError, which Pooch does not retry."""
        if self.tell() + len(content) > self.limit:
            raise OSError(f"it has more than {self.limit:,} bytes")
        return super().write(content)
