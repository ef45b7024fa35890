"""How fast the pipeline is: `make bench` and `make bench-full`, written to benchmarks/results.json."""
