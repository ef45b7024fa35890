"""The metrics, tables and figures of one model."""
