"""The gate, the two aliases, the history and the tags of a version, with a real store."""

import itertools
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from pipeline.commands.champion import show
from pipeline.core import keras_file, prediction
from pipeline.core.backend import keras
from pipeline.shared.temperature import scaled
from pipeline.stages.promote import packaging, promotion, serving_check
from pipeline.stages.promote.gate import Candidate, IncomparableError, Standing, judge
from pipeline.stages.promote.registration import is_version_of
from pipeline.support import mlflow_aliases, mlflow_registry
from pipeline.support.digests import digest_of, file_digest
from pipeline.support.errors import PipelineError
from tests.called import call, this_process
from tests.conftest import PARAMS
from tests.keras_models import network_model
from tests.processes import wait_for

NAME = "cifar10"
CLASSES = [f"class{number}" for number in range(10)]
MARGIN = 0.1
COMMIT = "c0ffee"
ENDED = 4_102_444_800_000  # when every run ended: 2100, in milliseconds
NEW_PROCESS = serving_check.new_process
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
VALIDATION: dict[str, np.ndarray] = {
    "images": IMAGES,
    "labels": np.arange(3),
    "ids": np.arange(3, dtype=np.uint64),
}


@keras.saving.register_keras_serializable()
class OwnLayer(keras.layers.Layer):
    """A layer that no server knows."""

    def call(self, inputs: Any) -> Any:
        return inputs


@dataclass(frozen=True)
class Registry:
    """A store in which `first` was promoted, and then `better`."""

    folder: Path
    first: Candidate
    better: Candidate
    best: Candidate  # which no one promoted
    lines: list[str] = field(default_factory=list)  # what each promotion said
    aliases: list[dict[str, str]] = field(default_factory=list)  # how they stood after it


def new_candidate(
    folder: Path, seed: int, accuracy: float, registered_name: str = NAME, run_id: str = "", model: Any = None
) -> Candidate:
    """A model, by default an untrained one that the seed decides, with a run of its own."""
    file = folder / f"shallow-{seed}" / "model.keras"
    keras.utils.set_random_seed(seed)
    model = model or network_model("shallow", len(CLASSES))
    keras_file.save(model, file)
    tags = {"variant": "shallow", "seed": str(seed), "model_digest": file_digest(file)}
    return Candidate(
        registered_name=registered_name,
        run_id=run_id or new_run(),
        model_id=None,
        model=file,
        images=IMAGES,
        probabilities=prediction.probabilities(model, IMAGES),
        validation=VALIDATION,
        training_ids=np.arange(100, 110, dtype=np.uint64),
        other_images=False,
        classes=CLASSES,
        serving=packaging.Serving(batch_limit=4),
        tags=tags | {"data_digest": "data", "split_digest": "split"},
        metric="accuracy",
        validation_score=accuracy,
        mean_validation_score=accuracy,
        seeds=1,
        margin_metric="accuracy",
        margin_score=accuracy,
        validation_accuracy=accuracy,
        test_accuracy=accuracy - 0.01,
    )


def new_run() -> str:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    run: str = client.create_run(experiment.experiment_id, tags={"git_commit": COMMIT}).info.run_id
    client.set_terminated(run, end_time=ENDED)
    return run


def promote(candidate: Candidate, force: bool = False) -> str:
    """What the registry did with a candidate, in lines."""
    return "\n".join(promotion.promote(candidate, MARGIN, force))


def aliases() -> dict[str, str]:
    found = mlflow.MlflowClient().get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def version(number: int) -> ModelVersion:
    return mlflow.MlflowClient().get_model_version(NAME, str(number))


def versions() -> list[ModelVersion]:
    return mlflow_registry.versions(NAME)


def state() -> Any:
    """All that the registry says of the model."""
    return aliases(), [(v.version, v.tags) for v in versions()]


def tag_of_run(candidate: Candidate) -> str | None:
    tags: dict[str, str] = mlflow.MlflowClient().get_run(str(candidate.run_id)).data.tags
    return tags.get("promotion")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        mlflow.MlflowClient().create_experiment(NAME, artifact_location=str(folder / "artifacts"))
        patch.setattr(serving_check, "new_process", this_process)
        first, better, best = (new_candidate(folder, seed, 0.55 + seed / 20) for seed in (1, 2, 3))
        made = Registry(folder, first, better, best)
        for candidate in (made.first, made.better):
            made.lines.append(promote(candidate))
            made.aliases.append(aliases())
        yield made


@pytest.fixture
def store(filled: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A copy of the store, which a test may change: version 2 is champion, version 1 previous."""
    shutil.copy(filled.folder / "mlflow.db", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return filled


BEST = "shallow has the highest validation accuracy, 0.6500"
BETTER = "is not better than the champion's"
OTHER_SPLIT = (
    "the champion cannot be scored on these validation images: it has other classes; "
    "`make promote FORCE=1` promotes the chosen model anyway"
)
CHANCE = "is below 0.2000, chance plus promotion.margin 0.1"


def with_score(candidate: Candidate, score: float) -> Candidate:
    """The candidate with this validation accuracy."""
    scores: dict[str, Any] = dict.fromkeys(
        ("validation_score", "mean_validation_score", "margin_score"), score
    )
    return replace(candidate, **scores)


def has_other_classes(_: Standing) -> Standing:
    raise IncomparableError("it has other classes")


@pytest.mark.parametrize(
    ("accuracy", "champion", "force", "accepted", "reason"),
    [
        (0.65, {"validation_accuracy": 0.65}, False, False, f"{BETTER} 0.6500"),
        (
            0.65,
            {"validation_accuracy": 0.9},
            True,
            True,
            f"{BEST}; promoted by FORCE=1, without a comparison",
        ),
        (0.65, {"split_digest": "another"}, False, False, OTHER_SPLIT),
        (0.65, {"split_digest": "another"}, True, True, f"{BEST}; promoted by FORCE=1, without a comparison"),
        (0.19, None, False, False, CHANCE),
        (0.19, {}, True, False, CHANCE),
        (float("nan"), None, False, False, "its validation accuracy is nan"),
        (float("inf"), {}, True, False, "its validation accuracy is inf"),
    ],
)
def test_gate(
    filled: Registry, accuracy: float, champion: Any, force: bool, accepted: bool, reason: str
) -> None:
    """For `better`, with this accuracy, and `first` as the champion, but for these tags."""
    described = filled.first.tags | {"validation_accuracy": 0.6, "test_accuracy": 0.7}
    standing = None if champion is None else Standing.model_validate(described | champion)
    candidate = with_score(filled.better, accuracy)
    verdict = judge(candidate, standing, None, MARGIN, force, has_other_classes)
    assert verdict.accepted == accepted
    assert reason in verdict.reason
    assert "\n" not in verdict.reason


@pytest.mark.parametrize(
    ("seeds", "champion", "reason"),
    [
        (3, {"seeds": 3, "mean_validation_accuracy": 0.64}, f"of 3 seeds 0.6300 {BETTER} 0.6400"),
        (3, {"validation_accuracy": 0.64}, f"of 3 seeds 0.6300 {BETTER} 0.6400"),
        (3, {"seeds": 1, "mean_validation_accuracy": 0.64}, "mean validation accuracy of 3 seeds, 0.6300"),
        (1, {"seeds": 3, "mean_validation_accuracy": 0.64}, BEST),
        (3, {}, "mean validation accuracy of 3 seeds, 0.6300"),
    ],
)
def test_the_best_of_several_seeds_is_never_compared(
    filled: Registry, seeds: int, champion: Any, reason: str
) -> None:
    """`better` has 0.65, and 0.63 in the mean of its seeds; the champion 0.6."""
    tags = filled.first.tags | {"validation_accuracy": 0.6, "test_accuracy": 0.7}
    standing, mean = Standing.model_validate(tags | champion), 0.63 if seeds > 1 else 0.65
    candidate = replace(filled.better, seeds=seeds, mean_validation_score=mean)
    verdict = judge(candidate, standing, None, MARGIN, False, has_other_classes)
    assert reason in verdict.reason
    assert verdict.accepted == ("not" not in reason)


def test_first_model_becomes_champion_and_has_tags_that_say_why(filled: Registry) -> None:
    assert filled.aliases[0] == {"champion": "1"}
    reason = "shallow has the highest validation accuracy, 0.6000; there was no champion before it"
    assert filled.lines[0] == f"{NAME}: version 1 is champion: {reason}"
    assert tag_of_run(filled.first) == f"version 1: {reason}"
    assert version(1).tags == filled.first.tags | filled.first.identity | {
        "metric": "accuracy",
        "validation_score": "0.600000",
        "mean_validation_score": "0.600000",
        "validation_accuracy": "0.600000",
        "test_accuracy": "0.590000",
        "seeds": "1",
        "training_ids": digest_of(list(range(100, 110))),
        "promotion": reason,
    }


def test_better_model_takes_its_place_and_the_old_one_becomes_previous(filled: Registry) -> None:
    assert filled.aliases[1] == {"champion": "2", "previous": "1"}
    reason = "shallow has the highest validation accuracy, 0.6500; the champion before it had 0.6000"
    assert filled.lines[1] == f"{NAME}: version 2 is champion: {reason}"
    assert version(2).tags["promotion"] == reason
    assert version(2).run_id == filled.better.run_id
    run = mlflow.MlflowClient().get_run(str(filled.better.run_id))
    assert (run.info.status, run.info.end_time) == ("FINISHED", ENDED)


def test_same_model_again_changes_nothing(store: Registry) -> None:
    before, again = state(), replace(with_score(store.better, 0.99), run_id=new_run())
    assert promote(again) == f"{NAME}: version 2 stays champion: it is the same model"
    assert state() == before
    assert tag_of_run(again) is None


def test_refusal_is_written_on_the_run_and_changes_nothing(store: Registry) -> None:
    before, worse = state(), replace(with_score(store.best, 0.6), run_id=new_run())
    reason = "validation accuracy 0.6000 is not better than the champion's 0.6500"
    assert promote(worse) == f"{NAME}: not promoted: {reason}"
    assert tag_of_run(worse) == f"refused: {reason}"
    assert state() == before


def with_other_validation_images(store: Registry, champion_is_right: int, **changes: Any) -> Candidate:
    """`best` with a run of its own and other validation images, so many of which the champion gets right."""
    answers = store.better.probabilities.argmax(axis=1)
    labels = np.where(np.arange(len(answers)) < champion_is_right, answers, (answers + 1) % len(CLASSES))
    tags = store.best.tags | {"split_digest": "another", "data_digest": "another"}
    validation = VALIDATION | {"labels": labels}
    return replace(store.best, **{"run_id": new_run(), "tags": tags, "validation": validation} | changes)


def test_the_champion_is_scored_on_other_validation_images(store: Registry) -> None:
    reason = "validation accuracy 0.7000 is not better than the champion's 1.0000 on the same images"
    assert promote(with_other_validation_images(store, 3)) == f"{NAME}: not promoted: {reason}"
    assert aliases() == store.aliases[-1]
    promoted = promote(with_other_validation_images(store, 2))
    assert promoted.endswith("the champion before it had 0.6667 on the same images")
    assert aliases() == {"champion": "3", "previous": "2"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"validation": VALIDATION | {"ids": np.array([99, 105, 109], np.uint64)}}, "2 of 3 were among its "),
        ({"classes": CLASSES[::-1]}, "it has other classes"),
        (
            {"images": np.zeros((3, 48, 48, 3), np.uint8)},
            "it takes images of 32 pixels (crop), and these have 48",
        ),
        (
            {"serving": packaging.Serving(batch_limit=4, fit="pad")},
            "it takes images of 32 pixels (crop), and these have 32 pixels (pad)",
        ),
    ],
)
def test_a_champion_that_may_know_the_validation_images_or_takes_others_is_not_scored(
    store: Registry, changes: Any, reason: str
) -> None:
    before = state()
    line = promote(with_other_validation_images(store, 0, **changes))
    assert line.startswith(
        f"{NAME}: not promoted: the champion cannot be scored on these validation images: "
    )
    assert reason in line
    assert state() == before


def test_another_metric_chooses_and_the_champion_is_scored_by_it(store: Registry) -> None:
    """A loss, of which less is better; the margin is of balanced accuracy then."""
    images, answers = VALIDATION["images"], store.better.probabilities
    nats = float(-np.log(answers[:, 0]).mean())
    by_loss: dict[str, Any] = {"metric": "loss", "margin_metric": "balanced_accuracy"}
    candidate = replace(store.best, validation={"images": images, "labels": np.zeros(3, int)}, **by_loss)

    def said(loss: float, margin_score: float = 0.7) -> str:
        changed = replace(with_score(candidate, loss), run_id=new_run(), margin_score=margin_score)
        return promote(changed)

    worse, better = nats + 0.1, nats - 0.1
    assert f"validation loss {worse:.4f} is not better than the champion's {nats:.4f}" in said(worse)
    assert "validation balanced accuracy 0.1900 is below 0.2000" in said(better, 0.19)
    expected = f"shallow has the lowest validation loss, {better:.4f}; the champion before it had {nats:.4f}"
    assert f"is champion: {expected} on the same images" in said(better)
    tags = version(3).tags
    assert (tags["metric"], tags["validation_score"]) == ("loss", f"{better:.6f}")


def test_a_model_that_started_from_a_registered_version_does_not_name_its_training_images(
    store: Registry,
) -> None:
    assert "training_ids" in store.best.described()
    assert "training_ids" not in replace(store.best, other_images=True).described()


def test_a_champion_whose_training_images_are_unknown_is_not_scored(store: Registry) -> None:
    client, candidate = mlflow.MlflowClient(), with_other_validation_images(store, 0)
    client.set_model_version_tag(NAME, "2", "training_ids", "of others")
    assert "images: the list of its training images is damaged; `make promote FORCE=1`" in promote(candidate)
    client.delete_model_version_tag(NAME, "2", "training_ids")
    assert "images: its version does not name its training images; " in promote(candidate)
    assert "is champion: " in promote(candidate, force=True)


@pytest.mark.parametrize(("tag", "value"), [("validation_accuracy", "nan"), ("split_digest", None)])
def test_champion_with_bad_tags_is_reported_and_counts_as_none(
    store: Registry, tag: str, value: str | None
) -> None:
    """For a model without a run, which waits for one."""
    client = mlflow.MlflowClient()
    client.delete_model_version_tag(NAME, "2", tag)
    if value is not None:
        client.set_model_version_tag(NAME, "2", tag, value)
    before = state()
    reported, waits = promote(replace(with_score(store.best, 0.3), run_id=None)).splitlines()
    counts = f"{NAME}: version 2, the champion, counts as none: its tags are missing or invalid: {tag}"
    assert reported == counts
    assert waits.endswith("run `make sync`, then `make promote`")
    assert state() == before


def test_served_probabilities_may_differ_by_rounding_only(store: Registry) -> None:
    stored = store.first.probabilities
    serving_check.check(lambda *_: stored + 0.0005, "models:/m/1", store.first.images, stored)
    with pytest.raises(
        PipelineError, match=r"^models:/m/1: not promoted: .* up to 0\.002; must be at most 0\.001$"
    ):
        serving_check.check(lambda *_: stored + 0.002, "models:/m/1", store.first.images, stored)


def with_other_answers(store: Registry, run_id: str) -> Candidate:
    return replace(store.first, run_id=run_id, probabilities=store.first.probabilities[:, ::-1])


def with_a_layer_of_its_own(store: Registry, run_id: str) -> Candidate:
    layers = [OwnLayer(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(len(CLASSES))]
    model = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), *layers])
    return new_candidate(store.folder, 9, 0.9, run_id=run_id, model=model)


def without_its_file(store: Registry, run_id: str) -> Candidate:
    tags = store.first.tags | {"model_digest": "lost"}
    return replace(store.first, run_id=run_id, model=store.folder / "lost.keras", tags=tags)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_other_answers, "not promoted: its probabilities differ from the stored ones"),
        (with_a_layer_of_its_own, "cannot be served, so it is not promoted: .*OwnLayer"),
        (without_its_file, r"lost\.keras"),
    ],
)
def test_model_that_cannot_serve_leaves_the_champion_and_its_own_run_as_they_were(
    store: Registry, monkeypatch: pytest.MonkeyPatch, make: Callable[[Registry, str], Candidate], reason: str
) -> None:
    if make is with_a_layer_of_its_own:  # which this process knows
        monkeypatch.setattr(serving_check, "new_process", NEW_PROCESS)
    run_id = new_run()
    with pytest.raises(Exception, match=reason) as caught:
        promote(make(store, run_id), force=True)
    assert "\n" not in str(caught.value)
    assert aliases() == store.aliases[-1]
    assert mlflow.MlflowClient().get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("name", "alias", "missing"),
    [
        (NAME, "champion", "champion"),
        (NAME, "previous", "earlier champion to return to"),
        ("another", "champion", "champion"),
    ],
)
@pytest.mark.usefixtures("store")
def test_rollback_without_an_alias_is_an_error(name: str, alias: str, missing: str) -> None:
    if name == NAME:
        mlflow.MlflowClient().delete_registered_model_alias(NAME, alias)
    with pytest.raises(PipelineError, match=f"^{name}: there is no {missing}$"):
        mlflow_aliases.rollback(name, str)


def test_rollback_to_a_version_that_cannot_be_loaded_is_refused(store: Registry, workplace: Path) -> None:
    shutil.copy(PARAMS, workplace)
    client = mlflow.MlflowClient()
    lost = client.create_model_version(NAME, str(store.better.model.parent))
    client.set_registered_model_alias(NAME, mlflow_registry.PREVIOUS, lost.version)
    refused = call(workplace, "rollback", MLFLOW_TRACKING_URI=mlflow.get_tracking_uri()).refusal
    assert refused.startswith(f"models:/{NAME}@previous: cannot be loaded: ")
    assert aliases() == {"champion": "2", "previous": str(lost.version)}


def test_champion_is_there_at_every_moment_of_a_forced_promotion_and_a_rollback(store: Registry) -> None:
    done, seen, missing = threading.Event(), set[str](), list[str]()

    def watch() -> None:
        client = mlflow.MlflowClient()
        while not done.is_set():
            try:
                seen.add(str(client.get_model_version_by_alias(NAME, mlflow_registry.CHAMPION).version))
            except Exception as error:
                missing.append(str(error))
            time.sleep(0.002)

    watcher, before = threading.Thread(target=watch), len(versions())
    watcher.start()
    try:
        wait_for(lambda: "2" in seen)  # it watches from the beginning
        assert "version 1 is champion" in promote(replace(store.first, run_id=new_run()), force=True)
        assert aliases() == {"champion": "1", "previous": "2"}
        wait_for(lambda: "1" in seen)
        rolled_back = mlflow_aliases.rollback(NAME, str)
    finally:
        done.set()
        watcher.join()
    assert not missing
    back = "version 2 is champion again, in place of version 1; `make rollback` undoes this"
    assert rolled_back == [f"{NAME}: {back}"]
    assert seen == {"1", "2"}
    assert aliases() == {"champion": "2", "previous": "1"}
    assert len(versions()) == before  # a model that is a version already is not registered again


@pytest.mark.usefixtures("store")
def test_served_champion_names_its_classes_origin_and_requirements(filled: Registry) -> None:
    path = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion"))
    served = mlflow.pyfunc.load_model(str(path))
    metadata = {"classes": CLASSES, "git_commit": COMMIT} | filled.better.tags
    assert served.metadata.metadata == metadata
    pinned = (path / "requirements.txt").read_text().split()
    assert pinned == packaging.requirements()
    assert all(re.fullmatch(r"[a-z]+==[\d.]+", line) for line in pinned)


# A person's decision stands. The models: A, B and C have accuracies 0.6, 0.65 and 0.7; B replaced A.

NAMES = {"A": "first", "B": "better", "C": "best"}
BACK, FORCED = "`make rollback` makes it champion again", "`make promote FORCE=1`"
STORIES = [  # steps, what the last one says, the champion and `previous` after it, and the history
    ("rollback, promote B", f"its version 2 was champion before; {BACK}", "A", "B", "BA"),
    (
        "rollback, promote B, force B",
        "is champion: .*; promoted by FORCE=1, without a comparison",
        "B",
        "A",
        "AB",
    ),
    ("rollback, promote C", "is champion: .*; the champion before it had 0.6000", "C", "A", "BAC"),
    ("alias A, promote B", f"its version 2 was champion before; {BACK}", "A", "B", "BA"),
    ("alias A, rollback", "version 2 is champion again, in place of version 1", "B", "A", "AB"),
    ("alias A, delete B, promote B", f"its version 2 was deleted; {FORCED}", "A", None, "BA"),
    (
        "alias A, delete B, force B",
        "version 3 is champion: .*; promoted by FORCE=1, without a comparison",
        "B",
        "A",
        "AB",
    ),
    ("delete B, promote B", "version 3 is champion: .*; there was no champion before it", "B", "A", "AB"),
    ("promote A", f"its version 1 was champion before; {BACK}", "B", "A", "AB"),
    ("force A, promote B", f"its version 2 was champion before; {BACK}", "A", "B", "BA"),
    ("force A, promote B, rollback, promote A", f"its version 1 was champion .*; {BACK}", "B", "A", "AB"),
    ("crash C, promote C", "version 3 stays champion: it is the same model", "C", "B", "ABC"),
    ("crash C, promote C, alias B, promote C", f"its version 3 was champion .*; {BACK}", "B", "C", "ACB"),
    ("crash C, rollback, promote C", f"its version 3 was champion before; {BACK}", "B", "C", "ACB"),
    ("untested C, promote C", "version 3 is champion", "C", "B", "ABC"),
    ("untested C, delete C, promote C", f"its version 3 was deleted; {FORCED}", "B", "A", "AB"),
]


def act(store: Registry, step: str) -> str:
    """Do one step of a story, and return what it said.

    `crash` is one after the alias moved, `untested` one after the registration; `alias` and `delete` are what
    a person does in MLflow's UI.
    """
    what, _, model = step.partition(" ")
    client, candidate = mlflow.MlflowClient(), getattr(store, NAMES.get(model, "first"))
    found = [str(version.version) for version in mlflow_registry.versions(NAME, candidate.digest)]
    if what == "rollback":
        return "\n".join(mlflow_aliases.rollback(NAME, str))
    if what in {"promote", "force"}:
        return promote(candidate, force=what == "force")
    if what == "alias":
        client.set_registered_model_alias(NAME, mlflow_registry.CHAMPION, found[0])
    elif what == "delete":
        for number in found:
            client.delete_model_version(NAME, number)
    else:
        broken = (mlflow_aliases, "note_champion") if what == "crash" else (serving_check, "check")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*broken, interrupt)
            with pytest.raises(KeyboardInterrupt):
                promote(candidate)
    return ""


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("steps", "says", "champion", "previous", "history"), STORIES)
def test_a_persons_decision_stands(
    store: Registry, steps: str, says: str, champion: str, previous: str | None, history: str
) -> None:
    letters = {getattr(store, name).digest: letter for letter, name in NAMES.items()}
    said = [act(store, step) for step in steps.split(", ")]
    assert re.search(says, said[-1])
    stand = {alias: letters[version(int(number)).tags["model_digest"]] for alias, number in aliases().items()}
    assert stand == {"champion": champion} | ({"previous": previous} if previous else {})
    assert "".join(letters[digest] for digest in mlflow_registry.history(NAME)) == history


@contextmanager
def interrupted_at(number: int) -> Iterator[None]:
    """This write to the store's database raises KeyboardInterrupt, and nothing of its transaction is kept."""
    writes = iter(range(1, number + 1))

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")) and next(writes, None) == number:
            raise KeyboardInterrupt

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        pytest.param("promote C", "BA AB", "CB ABC", marks=pytest.mark.faults),
        ("force A", "BA AB", "AB BA"),
        ("rollback", "BA AB", "AB BA"),
    ],
)
def test_a_promotion_or_rollback_that_is_interrupted_is_completed_or_undone(
    store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, before: str, after: str
) -> None:
    """At each of its writes. The states are the models that are champion and previous, and the history."""
    letters = {getattr(store, name).digest: letter for letter, name in NAMES.items()}

    def stand() -> str:
        found = (version(int(aliases()[alias])) for alias in ("champion", "previous"))
        models = [[one.tags["model_digest"] for one in found], mlflow_registry.history(NAME)]
        return " ".join("".join(letters[digest] for digest in digests) for digests in models)

    seen = list[str]()
    for number in itertools.count(1):
        shutil.copy(store.folder / "mlflow.db", tmp_path / f"{number}.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / f'{number}.db'}")
        assert stand() == before
        with suppress(KeyboardInterrupt), interrupted_at(number):
            act(store, step)
            break
        mlflow_aliases.settle(NAME)
        seen.append(stand())
        if seen[-1] == before:
            act(store, step)
        assert stand() == after
        assert mlflow_aliases.settle(NAME) == []
        assert mlflow_aliases.MOVE not in mlflow.MlflowClient().get_registered_model(NAME).tags
    assert stand() == after
    assert set(seen) == {before, after}


def test_an_alias_that_a_person_moved_after_an_interruption_stands(
    store: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    act(store, "crash C")
    show(NAME)
    assert "a promotion or rollback was interrupted: `make sync` completes it" in capsys.readouterr().out
    act(store, "alias A")
    mlflow_aliases.set_alias(NAME, "previous", "3")
    assert mlflow_aliases.settle(NAME) == []
    assert aliases() == {"champion": "1", "previous": "3"}
    mlflow.MlflowClient().set_registered_model_tag(NAME, mlflow_aliases.MOVE, "damaged")
    assert mlflow_aliases.settle(NAME) == []


def test_the_champion_served_in_another_way_is_a_new_version_but_no_promotion(store: Registry) -> None:
    history, served = mlflow_registry.history(NAME), packaging.Serving(batch_limit=4, temperature=2)
    found = scaled(store.better.probabilities, 2)
    with pytest.raises(PipelineError, match="its probabilities differ from the stored ones"):
        promote(replace(store.better, serving=served))
    changed = replace(store.better, serving=served, probabilities=found)
    line = promote(changed)
    number = aliases()["champion"]
    same = "the same model as version 2, served in another way"
    assert line == f"{NAME}: version {number} is champion: {same}"
    assert aliases()["previous"] == "1"
    assert mlflow_registry.history(NAME) == history
    assert Standing.model_validate(version(int(number)).tags) == Standing.model_validate(version(2).tags)
    assert promote(changed).endswith("it is the same model")
    promote(store.better)
    assert aliases() == store.aliases[-1]  # the first version again


def test_the_champion_whose_files_are_gone_is_registered_again_but_not_promoted(store: Registry) -> None:
    history, files = mlflow_registry.history(NAME), store.folder / "artifacts/models"
    files.rename(files.with_name("gone"))
    try:
        line = promote(store.better)
        assert "is champion: the same model as version 2, registered again" in line
        assert mlflow_registry.history(NAME) == history
        assert aliases() == {"champion": "3", "previous": "1"}
    finally:
        shutil.rmtree(files)
        files.with_name("gone").rename(files)


def test_version_with_the_tags_of_another_model_is_not_taken_for_it(store: Registry) -> None:
    client = mlflow.MlflowClient()
    raw = client.create_model_version(NAME, str(store.better.model.parent), tags=store.better.identity)
    client.set_registered_model_alias(NAME, mlflow_registry.CHAMPION, raw.version)
    assert not is_version_of(raw, store.better)
    assert "version 2 is champion: the same model as version 3, registered again" in promote(store.better)


def test_a_damaged_history_is_no_traceback(store: Registry) -> None:
    key = f"{mlflow_registry.HISTORY}{store.first.digest}"
    mlflow.MlflowClient().set_registered_model_tag(NAME, key, "by hand")
    assert [*mlflow_registry.history(NAME)] == [store.better.digest]
    assert "`make rollback` makes it champion again" in promote(store.first)  # since it is `previous`


@pytest.mark.usefixtures("store")
def test_an_alias_that_another_machine_creates_at_that_moment_is_set_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With MLflow's error, since two real machines collide rarely."""
    collision, real = (
        MlflowException("UNIQUE constraint", BAD_REQUEST),
        MlflowClient.set_registered_model_alias,
    )
    answers = iter([collision, collision, None, collision, collision, collision])

    def collide(*arguments: Any) -> None:
        if error := next(answers):
            raise error
        real(*arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", collide)
    mlflow_aliases.set_alias(NAME, mlflow_registry.CHAMPION, "1")
    assert aliases()["champion"] == "1"
    with pytest.raises(MlflowException, match="UNIQUE"):
        mlflow_aliases.set_alias(NAME, mlflow_registry.CHAMPION, "2")
