"""List the files of one of the user's folders of images, so that `fetch` runs again after an edit there.

    python -m pipeline.watch PART FOLDER

Writes data/images/PART, the SHA-256 of every file by its path. DVC runs it for each entry of data.folders
in params.yaml, whenever the folder has changed.
"""

import argparse
from pathlib import Path

from pipeline.data.folders import files_in
from pipeline.shared.arrays import file_digest, write_json
from pipeline.shared.errors import one_line_errors
from pipeline.shared.paths import LISTINGS


@one_line_errors
def main() -> None:
    """List and write."""
    parser = argparse.ArgumentParser(description="List the files of a folder of images.")
    parser.add_argument("part", help="a key of data.folders in params.yaml")
    parser.add_argument("folder", type=Path, help="its value")
    arguments = parser.parse_args()
    files = {str(path.relative_to(arguments.folder)): path for path in files_in(arguments.folder)}
    write_json(LISTINGS / arguments.part, {name: file_digest(path) for name, path in files.items()})
    print(f"watch: {len(files):,} files in {arguments.folder}")


if __name__ == "__main__":
    main()
