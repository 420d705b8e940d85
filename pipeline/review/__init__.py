"""Review: what people say about pairs of passages, what it changes, how far they agree, and labels made of it."""
