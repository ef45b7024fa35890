"""Results of jobs: nothing is left of a failed one, and a whole one can be used again after a kill."""

from pathlib import Path

import pytest

from pipeline.core.arrays import write_json
from pipeline.support import job_results
from pipeline.support.errors import PipelineError


def test_a_result_that_fails_leaves_its_reason_and_nothing_else(workplace: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "model.keras").touch()
        raise PipelineError("the disk is full")

    with pytest.raises(PipelineError, match="full"):
        job_results.make("key", write)
    assert [path.name for path in (workplace / ".pipeline/results").iterdir()] == ["key.failed"]


@pytest.mark.usefixtures("workplace")
def test_a_result_can_be_used_again_if_dvc_was_killed_before_it_wrote_dvc_lock() -> None:
    Path("models").mkdir()
    job_results.make("key", lambda folder: write_json(folder / "training.json", {}))
    for _ in range(2):  # DVC was killed after the first, so it runs the stage again
        assert job_results.take("key", Path("models/one-0"))
        assert [path.name for path in Path("models/one-0").iterdir()] == ["training.json"]
        Path("models/one-0/of a killed stage").touch()
