"""List the files of one of the user's folders of images, so that `fetch` runs again after an edit there.

    python -m pipeline watch PART FOLDER

Writes data/images/PART, the SHA-256 of every file by its path. DVC runs it for each entry of data.folders
in params.yaml, whenever the folder has changed. Reads only files that have changed: what identifies their
state is kept in .pipeline/images.
"""

from pathlib import Path

import click

from pipeline.core.arrays import write_json
from pipeline.stages.fetch import file_digests
from pipeline.stages.fetch.folders import files_in
from pipeline.support.paths import IMAGES, LISTINGS
from pipeline.support.words import count


@click.command()
@click.argument("part")
@click.argument("folder", type=click.Path(path_type=Path))
def main(part: str, folder: Path) -> None:
    """List the files of FOLDER, the value of PART in data.folders of params.yaml."""
    files = files_in(folder)
    digests = file_digests.update(IMAGES / f"{part}.json", files, f"watch: {folder}")
    names = (str(path.relative_to(folder)) for path in files)
    write_json(LISTINGS / part, dict(zip(names, digests, strict=True)))
    print(f"watch: {count(len(files), 'file')} in {folder}")
