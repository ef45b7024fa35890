"""The choice of arithmetic, and that DVC sees what the hardware chose."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import precision

ROOT = Path(__file__).parents[1]
LINUX = "processor\t: 0\nflags\t\t: fpu sse2 {}\nbugs\t\t: none\nprocessor\t: 1\nflags\t\t: fpu sse2 {}\n"


@pytest.fixture
def choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A call that runs the stage with a setting, on a CPU with a feature, and gives what it wrote."""

    def choose(setting: str, feature: str | None = None) -> str:
        params = (ROOT / "params.yaml").read_text().replace("precision: float32", f"precision: {setting}")
        (tmp_path / "params.yaml").write_text(params)
        if feature is not None:
            (tmp_path / "cpuinfo").write_text(LINUX.format(feature, feature))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(precision, "CPU", Path("cpuinfo"))
        precision.main()
        return str(json.loads(Path("precision.json").read_text())["precision"])

    return choose


@pytest.mark.parametrize("setting", ["float32", "mixed_bfloat16"])
def test_a_setting_is_followed_whatever_the_hardware(choice: Callable[..., str], setting: str) -> None:
    for feature in ("avx512_bf16", "avx2"):
        assert choice(setting, feature) == setting


@pytest.mark.parametrize(
    ("feature", "chosen"),
    [
        ("avx512_bf16", "mixed_bfloat16"),
        ("amx_bf16", "mixed_bfloat16"),
        ("avx2", "float32"),
        (None, "float32"),  # not Linux
    ],
)
def test_auto_chooses_bfloat16_only_where_the_cpu_has_it(
    choice: Callable[..., str], feature: str | None, chosen: str
) -> None:
    assert choice("auto", feature) == chosen


def test_this_machines_features_are_read() -> None:
    if not precision.CPU.is_file():
        pytest.skip("no Linux")
    assert "fpu" in precision.cpu_features() or precision.cpu_features() == set()
