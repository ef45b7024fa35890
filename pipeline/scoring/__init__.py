"""What is measured of a model, and how it is shown: scores, figures, tables and text."""
