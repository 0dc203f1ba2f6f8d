"""What a run has become since its baseline: measures, layers matched by name and shape, shifts, new findings."""
