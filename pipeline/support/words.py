"""Numbers in words."""


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `2,000 files`, `2 classes`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
