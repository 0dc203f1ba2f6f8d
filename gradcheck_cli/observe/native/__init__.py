"""Reductions in C, which read each number once."""
