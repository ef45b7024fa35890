"""params.yaml: what decides a variant's weights, and what is wrong with the file in words."""
