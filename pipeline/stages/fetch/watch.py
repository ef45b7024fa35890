"""List the files of one of the user's folders of images, so that `fetch` runs again after an edit there.

    python -m pipeline watch PART FOLDER

Writes data/images/PART, the SHA-256 of every file by its path. DVC runs it for each entry of data.folders
in params.yaml, whenever the folder has changed.
"""

from pathlib import Path

import click

from pipeline.core.arrays import write_json
from pipeline.stages.fetch.folders import files_in
from pipeline.support.digests import file_digest
from pipeline.support.paths import LISTINGS


@click.command()
@click.argument("part")
@click.argument("folder", type=click.Path(path_type=Path))
def main(part: str, folder: Path) -> None:
    """List the files of FOLDER, the value of PART in data.folders of params.yaml."""
    files = {str(path.relative_to(folder)): path for path in files_in(folder)}
    write_json(LISTINGS / part, {name: file_digest(path) for name, path in files.items()})
    print(f"watch: {len(files):,} files in {folder}")
