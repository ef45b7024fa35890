"""The page that `python -m pipeline demo` serves: Streamlit runs this file for every change on the page."""

import re
import sys

import altair as alt
import mlflow
import numpy as np
import pandas as pd
import streamlit as st
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline.commands import loaded_model
from pipeline.commands.loaded_model import LoadedModel
from pipeline.shared import image_decoding
from pipeline.support.errors import PipelineError

SHOWN = 256  # pixels across, at least
CONFUSIONS = 3
# Hands an image that is pasted anywhere on the page to the upload field, and says so once it does.
PASTE = """
export default function ({ parentElement }) {
  const paste = (event) => {
    const field = document.querySelector('[data-testid="stFileUploader"] input[type="file"]');
    if (!field || !event.clipboardData.files.length) return;
    field.files = event.clipboardData.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("paste", paste);
  parentElement.querySelector("small").textContent = "or paste one, anywhere on the page";
  return () => document.removeEventListener("paste", paste);
}
"""


def show_page() -> None:
    """Ask for an image, and show the model's answer."""
    st.set_page_config(page_title="Which class is it?", layout="wide")
    model = loaded(sys.argv[1] if len(sys.argv) > 1 else loaded_model.champion_uri())
    st.title("Which class is it?")
    st.caption(plain(f"{model.uri}: one of {', '.join(model.classes)}"))
    left, middle, right = st.columns([3, 3, 4], gap="large")
    with left:
        pixels, actual = chosen(model)
    if pixels is None:
        return
    probabilities = model.probabilities(pixels[None])[0]
    likeliest = model.classes[int(probabilities.argmax())]
    answer = likeliest if model.label(probabilities) else f"No label: most likely {likeliest}"
    with middle:
        st.subheader("The network sees")
        st.image(enlarged(pixels), caption=f"{model.size} x {model.size} pixels")
    with right:
        st.subheader(plain(f"{answer}, {probabilities.max():.1%}"))
        if actual is not None:
            st.markdown(f"It is: **{plain(actual)}**")
        show_distribution(model.classes, probabilities)
        show_confusions(model, likeliest)


@st.cache_resource(show_spinner="Loading the model")
def loaded(uri: str) -> LoadedModel:
    """The model, once for all visitors."""
    return loaded_model.load(uri)


@st.cache_data(show_spinner=False)
def confusion(uri: str) -> pd.DataFrame | None:
    """The confusion matrix of the model's evaluation, actual classes in rows; None if there is none."""
    run = loaded(uri).model.metadata.run_id
    try:
        path = mlflow.artifacts.download_artifacts(run_id=run, artifact_path="evaluation/confusion.csv")
    except (MlflowException, OSError):
        return None
    return pd.read_csv(path, index_col=0, dtype={"actual": str}, keep_default_na=False)


def chosen(model: LoadedModel) -> tuple[np.ndarray | None, str | None]:
    """The uploaded or pasted image, or a test image with its class; None without a readable image."""
    file = st.file_uploader("Drop an image here", type=image_decoding.SUFFIXES)
    st.components.v2.component("paste", html="<small></small>", js=PASTE)()
    if file is not None:
        try:
            return image_decoding.decode(file.getvalue(), model.size, True, model.fit), None
        except image_decoding.ImageError as error:
            st.error(plain(f"{file.name}: {error}"))
            return None, None
    if (test := model.parts.get("test")) is None:
        return None, None
    last = len(test["labels"]) - 1
    number = int(st.number_input(f"Or take a test image: 0 to {last}", 0, last, value=0))
    return test["images"][number], model.classes[test["labels"][number]]


def enlarged(pixels: np.ndarray) -> Image.Image:
    """Each pixel as a square."""
    across = -(-SHOWN // len(pixels)) * len(pixels)
    return Image.fromarray(pixels).resize((across, across), Image.Resampling.NEAREST)


def show_distribution(classes: list[str], probabilities: np.ndarray) -> None:
    """The probabilities as bars from 0 to 100 %, in the classes' order."""
    table = pd.DataFrame({"class": classes, "probability": probabilities})
    bars = (
        alt.Chart(table)
        .mark_bar()
        .encode(
            x=alt.X("probability", title=None, scale=alt.Scale(domain=(0, 1)), axis=alt.Axis(format="%")),
            y=alt.Y("class", title=None, sort=None),
            tooltip=["class", alt.Tooltip("probability", format=".2%")],
        )
    )
    st.altair_chart(bars, height=max(120, 30 * len(classes)))


def show_confusions(model: LoadedModel, label: str) -> None:
    """The classes that the model confused most with this one, in either direction, in its evaluation."""
    counts = confusion(model.uri)
    if counts is None or label not in counts.columns:
        return
    mixed = {name: counts[label][name] + counts[name][label] for name in counts.columns if name != label}
    most = sorted(mixed, key=mixed.__getitem__, reverse=True)[:CONFUSIONS]
    named = [f"{plain(name)} ({mixed[name]})" for name in most if mixed[name]]
    if named:
        st.markdown(f"On test images, it confuses **{plain(label)}** most with {', '.join(named)}.")
    else:
        st.markdown(f"It confused no test image with **{plain(label)}**.")


def plain(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


try:
    show_page()
except PipelineError as error:
    st.error(plain(str(error)))
