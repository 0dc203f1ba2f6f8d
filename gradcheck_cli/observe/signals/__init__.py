"""What modules and functions do with the signal, on probed steps."""
