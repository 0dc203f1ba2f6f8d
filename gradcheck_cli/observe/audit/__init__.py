"""Watch what a training loop does with its gradients, call by call."""
