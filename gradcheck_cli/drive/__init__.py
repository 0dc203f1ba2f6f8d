"""Run training steps of a user's workload. Ordinary training code: it knows nothing of measuring."""
