"""Make the previous champion champion again, and the champion the previous one.

    python -m pipeline.rollback

Reads params.yaml (data), loads the previous champion, so that a damaged one is not made champion, and changes
the two aliases of the registered model.
"""

from pipeline.champion import registry
from pipeline.classification import inference
from pipeline.params import Params
from pipeline.records import store
from pipeline.shared.arguments import no_arguments
from pipeline.shared.lock import command


@command
def main() -> None:
    """Load the previous champion and swap the aliases."""
    no_arguments(__doc__)
    name = Params.read().data.dataset
    store.check()
    if registry.version_at(name, registry.PREVIOUS) is not None:
        inference.load_model(f"models:/{name}@{registry.PREVIOUS}")
    print(registry.rollback(name))


if __name__ == "__main__":
    main()
