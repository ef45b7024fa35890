"""Make the previous champion champion again, and the champion the previous one.

    python -m pipeline.rollback

Reads params.yaml (data), and changes the two aliases of the registered model.
"""

from pipeline.champion import registry
from pipeline.errors import one_line_errors
from pipeline.params import Params
from pipeline.records import store
from pipeline.running.lock import alone
from pipeline.settings.reading import read_params


@one_line_errors
@alone
def main() -> None:
    """Swap the aliases."""
    params = read_params(Params)
    store.check()
    print(registry.rollback(params.data.dataset))


if __name__ == "__main__":
    main()
