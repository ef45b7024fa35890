"""The gate and the registration of a champion, and how it is served."""
