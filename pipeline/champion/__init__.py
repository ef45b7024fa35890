"""The model that is served: chosen, registered, asked."""
