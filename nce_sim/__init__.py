"""nce-sim."""
