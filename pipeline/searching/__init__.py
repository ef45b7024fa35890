"""A search for better settings of a variant, on Ray."""
