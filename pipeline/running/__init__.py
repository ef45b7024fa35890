"""Stages as processes: side by side, one at a time each, and shown live."""
