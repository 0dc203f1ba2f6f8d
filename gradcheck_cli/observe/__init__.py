"""Watch any training code through torch's own hook points, and keep what it shows as a `Recording`."""
