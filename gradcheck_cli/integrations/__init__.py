"""gradcheck inside other people's training: a context manager, and callbacks for Lightning and transformers."""
