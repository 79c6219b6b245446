"""Long work on many things: a folder that knows what is done, and goes on where it was."""
