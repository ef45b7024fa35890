"""Near duplicates, suspicious labels, corrupted images."""
