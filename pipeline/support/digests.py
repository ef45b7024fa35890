"""SHA-256 of files and of JSON-like values.

They name what others wrote: an edit here can lose a result, but change none.
"""

import hashlib
import json
from pathlib import Path
from typing import Any


def digest_of(content: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON-like value; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
