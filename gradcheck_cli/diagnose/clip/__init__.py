"""Gradient clipping: whether a run needs it, at which max_norm, and what that will do."""
