"""Make the previous champion champion again, and the champion the previous one.

    python -m pipeline.rollback

Reads params.yaml (data), and changes the two aliases of the registered model.
"""

from pipeline.champion import registry
from pipeline.params import Params
from pipeline.records import store
from pipeline.shared.lock import command


@command
def main() -> None:
    """Swap the aliases."""
    params = Params.read()
    store.check()
    print(registry.rollback(params.data.dataset))


if __name__ == "__main__":
    main()
