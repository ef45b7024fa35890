"""The registry's gate, its two aliases and what a version tells, against a real store."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities.model_registry import ModelVersion

from pipeline.champion import registry, serving
from pipeline.champion.gate import Candidate
from pipeline.learning import model_file
from pipeline.learning.backend import keras
from pipeline.shared.arrays import file_digest
from pipeline.shared.errors import PipelineError
from tests.keras_models import network_model

NAME = "cifar10"
CLASSES = [f"class{number}" for number in range(10)]
MARGIN = 0.1
COMMIT = "c0ffee"
ENDED = 4_102_444_800_000  # when every run ended: 2100, in milliseconds
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Registry:
    """A store in which `first` was promoted, and then `better`."""

    folder: Path
    first: Candidate
    better: Candidate
    told: list[str] = field(default_factory=list)  # what each promotion said
    aliases: list[dict[str, str]] = field(default_factory=list)  # how they stood after it

    def candidate(self, seed: int, accuracy: float) -> Candidate:
        """Another trained model, with a run of its own."""
        return new_candidate(self.folder, seed, accuracy)


def new_candidate(
    folder: Path, seed: int, accuracy: float, registered_name: str = NAME, run_id: str = ""
) -> Candidate:
    file = folder / f"shallow-{seed}" / "model.keras"
    keras.utils.set_random_seed(seed)
    model_file.save(network_model("shallow", len(CLASSES)), file)
    tags = {"variant": "shallow", "seed": str(seed), "model_digest": file_digest(file)}
    return Candidate(
        registered_name=registered_name,
        run_id=run_id or new_run(),
        model=file,
        example=IMAGES[0],
        classes=CLASSES,
        batch_limit=4,
        tags=tags | {"data_digest": "data", "split_digest": "split"},
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
    """What the registry did with a candidate."""
    return registry.promote(candidate, MARGIN, force)


def aliases() -> dict[str, str]:
    found = mlflow.MlflowClient().get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def version(number: int) -> ModelVersion:
    return mlflow.MlflowClient().get_model_version(NAME, str(number))


def versions() -> list[ModelVersion]:
    return list(mlflow.MlflowClient().search_model_versions(f"name = '{NAME}'"))


def told_on_run(candidate: Candidate) -> str | None:
    tags: dict[str, str] = mlflow.MlflowClient().get_run(candidate.run_id).data.tags
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
        made = Registry(folder, new_candidate(folder, 1, 0.6), new_candidate(folder, 2, 0.65))
        for candidate in (made.first, made.better):
            made.told.append(promote(candidate))
            made.aliases.append(aliases())
        yield made


@pytest.fixture
def store(filled: Registry) -> Iterator[Registry]:
    """The store, whose aliases and tags a test may change: version 2 is champion, version 1 previous."""
    client = mlflow.MlflowClient()
    before = {v.version: v.tags for v in versions()}
    yield filled
    for alias in aliases().items() - filled.aliases[-1].items():
        client.delete_registered_model_alias(NAME, alias[0])
    for alias in filled.aliases[-1].items() - aliases().items():
        client.set_registered_model_alias(NAME, *alias)
    for v in versions():
        if v.version not in before:
            client.delete_model_version(NAME, v.version)
            continue
        for tag in before[v.version].items() - v.tags.items():
            client.set_model_version_tag(NAME, v.version, *tag)


def assert_refused(candidate: Candidate, reason: str, force: bool = False) -> None:
    """The candidate is refused for this reason, told on its run, and the registry stays as it was."""
    before = (aliases(), [(v.version, v.tags) for v in versions()])
    line = promote(candidate, force)
    assert line.startswith(f"{NAME}: not promoted: ")
    assert reason in line
    assert "\n" not in line
    assert told_on_run(candidate) == f"refused: {line.removeprefix(f'{NAME}: not promoted: ')}"
    assert (aliases(), [(v.version, v.tags) for v in versions()]) == before


def test_first_model_becomes_champion_and_tells_all_it_was_chosen_by(filled: Registry) -> None:
    assert filled.aliases[0] == {"champion": "1"}
    reason = "shallow has the highest validation accuracy, 0.6000; there was no champion before it"
    assert filled.told[0] == f"{NAME}: version 1 is champion: {reason}"
    assert told_on_run(filled.first) == f"version 1: {reason}"
    assert re.fullmatch("[0-9a-f]{32}", version(1).tags["promotion_id"])
    assert version(1).tags == filled.first.tags | filled.first.identity | {
        "promotion_id": version(1).tags["promotion_id"],
        "replaces": "none",
        "validation_accuracy": "0.600000",
        "test_accuracy": "0.590000",
        "validation_accuracy_change": "none: the first champion",
        "promotion": reason,
    }


def test_better_model_takes_its_place_and_the_old_one_becomes_previous(filled: Registry) -> None:
    assert filled.aliases[1] == {"champion": "2", "previous": "1"}
    reason = "shallow has the highest validation accuracy, 0.6500; version 1 had 0.6000"
    assert filled.told[1] == f"{NAME}: version 2 is champion: {reason}"
    assert version(2).tags["validation_accuracy_change"] == "+0.050000"
    assert version(2).tags["promotion"] == reason
    assert version(2).tags["replaces"] == version(1).tags["promotion_id"]
    assert version(2).run_id == filled.better.run_id


def test_registering_leaves_the_runs_status_and_times(filled: Registry) -> None:
    run = mlflow.MlflowClient().get_run(filled.first.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.end_time == ENDED


def test_same_model_again_changes_nothing(store: Registry) -> None:
    before = (aliases(), [(v.version, v.tags) for v in versions()])
    again = replace(store.better, run_id=new_run(), validation_accuracy=0.99)
    assert promote(again) == f"{NAME}: version 2 stays champion: it is the same model"
    assert (aliases(), [(v.version, v.tags) for v in versions()]) == before
    assert told_on_run(again) is None


@pytest.mark.parametrize("accuracy", [0.3, 0.65], ids=["worse", "equal"])
def test_model_that_is_no_better_is_refused(store: Registry, accuracy: float) -> None:
    worse = store.candidate(3, accuracy)
    reason = f"validation accuracy {accuracy:.4f} is not better than the 0.6500 of version 2"
    assert_refused(worse, reason)


def test_worse_model_is_promoted_by_force(store: Registry) -> None:
    line = promote(replace(store.first, run_id=new_run()), force=True)
    assert line.endswith("0.6000; forced, in place of version 2")
    assert aliases() == {"champion": "1", "previous": "2"}
    assert version(1).tags["validation_accuracy_change"] == "-0.050000"


def test_accuracy_on_another_split_is_not_compared_unless_forced(store: Registry) -> None:
    resplit = store.first.tags | {"split_digest": "another"}
    elsewhere = replace(store.first, run_id=new_run(), tags=resplit, validation_accuracy=0.9)
    assert_refused(elsewhere, "version 2, the champion, was scored on another split")
    assert "version 1 is champion" in promote(elsewhere, force=True)
    assert aliases() == {"champion": "1", "previous": "2"}
    assert version(1).tags["split_digest"] == "another"
    assert version(1).tags["validation_accuracy_change"].startswith("none: ")


@pytest.mark.parametrize("force", [False, True], ids=["", "forced"])
@pytest.mark.parametrize(
    ("accuracy", "reason"),
    [
        (0.19, "validation accuracy 0.1900 is below 0.2000, chance plus promotion.margin 0.1"),
        (float("nan"), "its validation accuracy is nan"),
        (float("inf"), "its validation accuracy is inf"),
    ],
    ids=["near chance", "nan", "inf"],
)
def test_model_that_has_learnt_nothing_is_refused(
    store: Registry, accuracy: float, reason: str, force: bool
) -> None:
    assert_refused(replace(store.first, run_id=new_run(), validation_accuracy=accuracy), reason, force)


def test_first_champion_passes_the_gate_too(store: Registry) -> None:
    nobody = replace(
        store.first, run_id=new_run(), registered_name="another", validation_accuracy=float("nan")
    )
    assert "not promoted" in promote(nobody)
    assert registry.version_at("another", registry.CHAMPION) is None


def test_model_that_is_a_version_already_is_not_registered_again(store: Registry) -> None:
    before = len(versions())
    registry.rollback(NAME)
    assert "version 2 is champion" in promote(replace(store.better, run_id=new_run()))
    assert aliases() == {"champion": "2", "previous": "1"}
    assert len(versions()) == before


@pytest.mark.usefixtures("store")
def test_rollback_swaps_and_a_second_one_restores() -> None:
    assert registry.rollback(NAME) == f"{NAME}: version 1 is champion again, version 2 is previous"
    assert aliases() == {"champion": "1", "previous": "2"}
    registry.rollback(NAME)
    assert aliases() == {"champion": "2", "previous": "1"}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("alias", ["champion", "previous"])
def test_rollback_without_an_alias_is_an_error_in_one_line(alias: str) -> None:
    mlflow.MlflowClient().delete_registered_model_alias(NAME, alias)
    with pytest.raises(PipelineError, match=f"'{NAME}' has no version with the alias '{alias}'") as caught:
        registry.rollback(NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("store")
def test_rollback_of_a_model_that_is_not_registered_is_an_error_in_one_line() -> None:
    with pytest.raises(PipelineError, match="'another' has no version with the alias 'champion'"):
        registry.rollback("another")


def test_champion_is_there_at_every_moment_of_a_promotion_and_a_rollback(store: Registry) -> None:
    done, seen, missing = threading.Event(), set[str](), list[str]()

    def watch() -> None:
        client = mlflow.MlflowClient()
        while not done.is_set():
            try:
                seen.add(str(client.get_model_version_by_alias(NAME, registry.CHAMPION).version))
            except Exception as error:
                missing.append(str(error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        promote(store.candidate(4, 0.7))
        promoted = aliases()["champion"]
        registry.rollback(NAME)
    finally:
        done.set()
        watcher.join()
    assert not missing
    assert "2" in seen
    assert seen <= {"2", promoted}
    assert aliases() == {"champion": "2", "previous": promoted}


def test_champion_without_our_tags_can_be_replaced_by_force(store: Registry) -> None:
    client = mlflow.MlflowClient()
    by_hand = client.create_model_version(NAME, str(store.folder))
    client.set_registered_model_alias(NAME, registry.CHAMPION, by_hand.version)
    foreign = replace(store.first, run_id=new_run())
    assert_refused(foreign, f"version {by_hand.version}, the champion, was scored on another split")
    assert "version 1 is champion" in promote(foreign, force=True)
    assert version(1).tags["validation_accuracy_change"].startswith("none: ")


def test_registration_that_fails_leaves_the_run_finished(store: Registry) -> None:
    lost = store.first.tags | {"model_digest": "lost"}
    file = store.folder / "lost.keras"
    absent = replace(store.first, model=file, tags=lost, run_id=new_run(), validation_accuracy=0.9)
    with pytest.raises(Exception, match=r"lost\.keras"):
        promote(absent)
    assert mlflow.MlflowClient().get_run(absent.run_id).info.status == "FINISHED"
    assert aliases() == store.aliases[-1]


def test_served_champion_answers_with_the_keras_models_probabilities(store: Registry) -> None:
    served = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    expected = model_file.probabilities(model_file.load(store.better.model), IMAGES)
    answers = [served.predict(serving.example_request(image))[0] for image in IMAGES]
    for answer, row in zip(answers, expected, strict=True):
        assert list(answer["probabilities"]) == CLASSES
        assert list(answer["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-6)
        assert answer["label"] == CLASSES[int(row.argmax())]
        assert answer["confidence"] == pytest.approx(float(row.max()), abs=1e-6)


def test_served_champion_tells_its_classes_and_what_made_it(store: Registry) -> None:
    served = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    told = {"classes": CLASSES, "git_commit": COMMIT} | store.better.tags
    assert served.metadata.metadata == told
    assert served.metadata.get_input_schema().input_names() == ["image", "pixels"]
    assert served.metadata.get_params_schema().params[0].name == "top_k"


def test_served_champion_pins_what_it_needs() -> None:
    path = mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion")
    pinned = (Path(path) / "requirements.txt").read_text().split()
    assert pinned == serving.requirements()
    assert all(re.fullmatch(r"[a-z]+==[\d.]+", line) for line in pinned)


@pytest.mark.usefixtures("store")
def test_keras_model_inside_the_served_one_loads_with_plain_keras() -> None:
    path = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion"))
    model = keras.saving.load_model(path / "artifacts/model.keras")
    assert model.output_shape == (None, len(CLASSES))


def test_same_model_served_in_another_way_is_a_new_version(store: Registry) -> None:
    """Also where a rule of the gate would refuse the same accuracy."""
    changed = replace(store.better, batch_limit=store.better.batch_limit + 1)
    line = promote(changed)
    number = aliases()["champion"]
    assert line.endswith(f"version {number} is champion: the model of version 2, served in another way")
    assert aliases()["previous"] == "2"
    assert version(int(number)).tags["model_digest"] == version(2).tags["model_digest"]
    assert promote(changed).endswith("it is the same model")
    served = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    rows = pd.concat([serving.example_request(IMAGES[0])] * 5)
    assert len(served.predict(rows)) == 5
