"""What `gradcheck init` writes, and what it looks at to write it. Nothing of the user's is imported or run."""
