"""Standing searches: somebody is looked for as windows close, under an authorization of that kind."""
