"""The page that `python -m pipeline demo` serves: Streamlit runs this file for every change on the page."""

import re
import sys
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
import streamlit as st
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline.commands import grad_cam, loaded_model
from pipeline.commands.loaded_model import LoadedModel
from pipeline.shared import image_decoding
from pipeline.support.errors import PipelineError

SHOWN = 512  # pixels across, at least
LIKELIEST = 3
CONFUSIONS = 3
HEAT = (255, 127, 14)  # orange
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
    """Ask for an image, and show it, what the network sees of it, and the model's answer."""
    st.set_page_config(page_title="Which class is it?", layout="wide")
    model = loaded_model.load_once(sys.argv[1] if len(sys.argv) > 1 else loaded_model.champion_uri())
    st.html("<style>.stMainBlockContainer { padding-top: 3rem; }</style>")
    st.title("Which class is it?")
    st.caption(plain(f"{model.uri}: one of {', '.join(model.classes)}"))
    image = chosen(model)
    if image is None:
        return
    probabilities = model.probabilities(image.pixels[None])[0]
    left, middle, right = st.columns(3, border=True)
    with left:
        st.subheader("The image")
        st.image(image.shown, width="stretch", caption=plain(image.name))
        if image.actual is not None:
            st.markdown(f"It is: **{plain(image.actual)}**")
    with middle:
        st.subheader("What the network sees")
        show_input(model, image.pixels, int(probabilities.argmax()))
    with right:
        st.subheader("The answer")
        show_answer(model, probabilities)


@st.cache_data(show_spinner=False)
def confusion(uri: str) -> pd.DataFrame | None:
    """The confusion matrix of the model's evaluation, actual classes in rows; None if there is none."""
    run = loaded_model.load_once(uri).model.metadata.run_id
    try:
        path = mlflow.artifacts.download_artifacts(run_id=run, artifact_path="evaluation/confusion.csv")
    except (MlflowException, OSError):
        return None
    return pd.read_csv(path, index_col=0, dtype={"actual": str}, keep_default_na=False)


@dataclass(frozen=True)
class Chosen:
    """An image: as it was uploaded, what the network gets of it, and its class if that is known."""

    name: str
    shown: np.ndarray
    pixels: np.ndarray
    actual: str | None


def chosen(model: LoadedModel) -> Chosen | None:
    """The uploaded or pasted image, or a test image with its class; None without a readable image."""
    left, right = st.columns([2, 1])
    with left:
        file = st.file_uploader("Drop an image here", type=image_decoding.SUFFIXES)
        st.components.v2.component("paste", html="<small></small>", js=PASTE)()
    if file is not None:
        try:
            pixels = image_decoding.decode(file.getvalue(), model.size, True, model.fit)
            return Chosen(file.name, photograph(file.getvalue()), pixels, None)
        except image_decoding.ImageError as error:
            st.error(plain(f"{file.name}: {error}"))
            return None
    if (test := model.parts.get("test")) is None:
        return None
    last = len(test["labels"]) - 1
    number = int(right.number_input(f"Or take a test image: 0 to {last}", 0, last, value=0))
    pixels = test["images"][number]
    smooth = Image.fromarray(pixels).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
    actual = model.classes[test["labels"][number]]
    return Chosen(f"test image {number}", np.asarray(smooth), pixels, actual)


def photograph(content: bytes) -> np.ndarray:
    """The whole image of a file, turned as people see it: without the grey bars that make it a square."""
    square = image_decoding.decode(content, SHOWN, True, "pad")
    inside = (square != image_decoding.GREY).any(axis=2)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else square


def show_input(model: LoadedModel, pixels: np.ndarray, label: int) -> None:
    """The pixels that the network gets; if wanted, orange where they speak for this class."""
    size = f"{model.size} x {model.size} pixels"
    picture, below = st.empty(), st.container()
    cam = grad_cam.load(model.uri)
    if cam and below.toggle("Where it looks (Grad-CAM)"):
        share = 0.7 * cam.heat(pixels, label)[..., None]
        pixels = ((1 - share) * pixels + share * HEAT).astype(np.uint8)
        size = f"orange: what speaks for {model.classes[label]}"
    across = -(-SHOWN // len(pixels)) * len(pixels)
    squares = Image.fromarray(pixels).resize((across, across), Image.Resampling.NEAREST)
    picture.image(squares, width="stretch", caption=plain(size))


def show_answer(model: LoadedModel, probabilities: np.ndarray) -> None:
    """The class with its confidence, the likeliest classes, and what the model confuses."""
    best = (-probabilities).argsort(kind="stable")[:LIKELIEST]
    likeliest = model.classes[best[0]]
    named = model.label(probabilities) is not None
    answer = likeliest if named else f"No label: most likely {likeliest}"
    st.header(plain(f"{answer}, {probabilities.max():.1%}"), anchor=False)
    st.caption("The confidence is that of the served model. The likeliest classes:")
    for label in best:
        name, share = plain(model.classes[label]), float(probabilities[label])
        st.progress(min(share, 1.0), f"{name}: {share:.1%}")
    show_confusions(model, likeliest)


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
