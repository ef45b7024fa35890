"""Find images that are in two parts of the data, even if their light, colours or compression differ.

Shifted and mirrored copies are not found.
"""

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import pairwise_distances_argmin_min

SIDE, BLOCKS = 16, 4  # of a fingerprint, in pixels; of its blocks in a row
SIMILAR = 0.9  # of twenty pairs of CIFAR-10 above it, nineteen show the same photograph or object
EARLIER = {"validation": ("train",), "test": ("train", "validation")}


def near_duplicates(images: dict[str, np.ndarray]) -> pd.DataFrame:
    """Validation images that resemble a training image, and test images that resemble one of the others.

    `images` are uint8 (n, height, width, 3) by part. A row for each image found, the most similar first:
    `part`, `image`, its number there, `of_part`, `of_image` and `similarity`, at least SIMILAR.
    """
    prints = {part: fingerprints(these) for part, these in images.items()}
    tables = []
    for part, others in EARLIER.items():
        for other in others:
            nearest, distances = pairwise_distances_argmin_min(prints[part], prints[other], metric="cosine")
            found = {"part": part, "image": range(len(nearest)), "of_part": other, "of_image": nearest}
            tables.append(pd.DataFrame(found | {"similarity": (1 - distances.astype(float)).round(4)}))
    table = pd.concat(tables).query("similarity >= @SIMILAR")
    table = table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)
    return table.drop_duplicates(["part", "image"], ignore_index=True)


def fingerprints(images: np.ndarray) -> np.ndarray:
    """The details of each image without its light and colours, float32 (n, SIDE * SIDE * 3).

    That is the image at SIDE pixels, less the mean of each of its blocks: without the details, any two skies
    would be alike. An image without details is all zeros, and resembles none.
    """
    small = np.stack(
        [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BOX)) for one in images]
    )
    blocks = small.reshape(len(images), BLOCKS, SIDE // BLOCKS, BLOCKS, SIDE // BLOCKS, 3).astype(np.float32)
    return (blocks - blocks.mean(axis=(2, 4), keepdims=True)).reshape(len(images), -1)
