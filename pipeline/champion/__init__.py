"""The champion: its selection, registration and serving."""
