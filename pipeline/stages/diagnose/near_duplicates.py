"""Find images that are in two parts of the data, even if their light, colours or compression differ.

Shifted and mirrored copies are not found.
"""

import numpy as np
import pandas as pd
import sklearn
from PIL import Image
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors

SIDE, BLOCKS = 16, 4  # of a fingerprint, in pixels; of its blocks in a row
SIMILAR = 0.9  # of twenty pairs of CIFAR-10 above it, nineteen show the same photograph or object
SAMPLED = 2_000  # training images that are compared with the other training images
WORKING_MEMORY = 128  # MiB for distances at a time; scikit-learn takes 1,024
EARLIER = {"validation": ("train",), "test": ("train", "validation")}


def near_duplicates(images: dict[str, np.ndarray], prints: dict[str, np.ndarray]) -> pd.DataFrame:
    """Validation images that resemble a training image, and test images that resemble one of the others.

    `images` are uint8 (n, height, width, 3) by part, and `prints` their fingerprints. A row for each image
    found, the most similar first: `part`, `index`, its number there, `of_part`, `of_index`, `similarity`, at
    least SIMILAR, and the mean absolute `difference` of the pixels in levels of 255, small for a copy.
    """
    tables = []
    for part, others in EARLIER.items():
        for other in others:
            with sklearn.config_context(working_memory=WORKING_MEMORY):
                nearest, distances = pairwise_distances_argmin_min(
                    prints[part], prints[other], metric="cosine"
                )
            found = {"part": part, "index": range(len(nearest)), "of_part": other, "of_index": nearest}
            tables.append(pd.DataFrame(found | {"similarity": (1 - distances.astype(float)).round(4)}))
    table = pd.concat(tables).query("similarity >= @SIMILAR")
    table = table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)
    table = table.drop_duplicates(["part", "index"], ignore_index=True)
    differences = [
        np.abs(
            images[row["part"]][row["index"]].astype(float) - images[row["of_part"]][row["of_index"]]
        ).mean()
        for row in table.to_dict("records")
    ]
    return table.assign(difference=np.array(differences, float).round(1))


def resemblance(found: pd.DataFrame, prints: dict[str, np.ndarray]) -> pd.DataFrame:
    """How many images of each part, of how many, resemble an image of an earlier part.

    `found` are the near duplicates of the images with these `prints`. For `train` it is how many of evenly
    chosen training images resemble another training image, which no split can have caused.
    """
    train = prints["train"]
    chosen = np.unique(np.linspace(0, len(train) - 1, min(SAMPLED, len(train))).round().astype(int))
    with sklearn.config_context(working_memory=WORKING_MEMORY):
        distances, _ = NearestNeighbors(n_neighbors=2, metric="cosine").fit(train).kneighbors(train[chosen])
    similar = {part: int((found["part"] == part).sum()) for part in EARLIER}
    similar["train"] = int((1 - distances[:, 1].astype(float) >= SIMILAR).sum())  # the nearest is itself
    total = {part: len(prints[part]) for part in EARLIER} | {"train": len(chosen)}
    return pd.DataFrame(
        {"part": list(similar), "similar": similar.values(), "images": [total[part] for part in similar]}
    )


def fingerprints(images: np.ndarray) -> np.ndarray:
    """The details of each image without its light and colours, float32 (n, SIDE * SIDE * 3).

    That is the image at SIDE pixels, less the mean of each of its blocks: without the details, any two skies
    would be alike. An image without details is all zeros, and resembles none.
    """
    small = np.stack(
        [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BOX)) for one in images]
    )
    blocks = small.reshape(len(images), BLOCKS, SIDE // BLOCKS, BLOCKS, SIDE // BLOCKS, 3).astype(np.float32)
    blocks -= blocks.mean(axis=(2, 4), keepdims=True)
    return blocks.reshape(len(images), -1)
