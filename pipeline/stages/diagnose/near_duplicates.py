"""Find images that are in two parts of the data, even if their light, colours or compression differ.

Shifted and mirrored copies are not found.
"""

import numpy as np
import pandas as pd
from PIL import Image

SIDE, BLOCKS = 16, 4  # of a fingerprint, in pixels; of its blocks in a row
SIMILAR = 0.9  # of twenty pairs of CIFAR-10 above it, nineteen show the same photograph or object
CHUNK = 500  # images, for the memory
EARLIER = {"validation": ("train",), "test": ("train", "validation")}


def near_duplicates(images: dict[str, np.ndarray]) -> pd.DataFrame:
    """Validation images that resemble a training image, and test images that resemble one of the others.

    `images` are uint8 (n, height, width, 3) by part. A row for each image found, the most similar first:
    `part`, `image`, its number there, `of_part`, `of_image` and `similarity`, at least SIMILAR.
    """
    prints = {part: fingerprints(these) for part, these in images.items()}
    rows = []
    for part, others in EARLIER.items():
        found = [most_similar(prints[part], prints[other]) for other in others]
        nearest = np.argmax([similarity for _, similarity in found], axis=0)
        for image, which in enumerate(nearest):
            of_image, similarity = (values[image] for values in found[which])
            if similarity >= SIMILAR:
                rows.append((part, image, others[which], int(of_image), float(similarity)))
    table = pd.DataFrame(rows, columns=["part", "image", "of_part", "of_image", "similarity"])
    return table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def fingerprints(images: np.ndarray) -> np.ndarray:
    """The details of each image without its light and colours, float32 (n, SIDE * SIDE * 3) of length 1.

    That is the image at SIDE pixels, less the mean of each of its blocks: without the details, any two skies
    would be alike. An image without details is all zeros, and resembles none.
    """
    small = np.stack(
        [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BOX)) for one in images]
    )
    blocks = small.reshape(len(images), BLOCKS, SIDE // BLOCKS, BLOCKS, SIDE // BLOCKS, 3).astype(np.float32)
    details = (blocks - blocks.mean(axis=(2, 4), keepdims=True)).reshape(len(images), -1)
    return details / np.maximum(np.linalg.norm(details, axis=1, keepdims=True), 1)


def most_similar(prints: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each fingerprint, which of `others` correlates most, and how much, to four digits."""
    index, similarity = [], []
    for start in range(0, len(prints), CHUNK):
        products = prints[start : start + CHUNK] @ others.T
        index.append(products.argmax(axis=1))
        similarity.append(products.max(axis=1))
    return np.concatenate(index), np.concatenate(similarity).astype(np.float64).round(4)
