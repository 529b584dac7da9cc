"""What the experiments of one task share."""
