"""An operator's search for one person: the request, which is written first, and the ranked hits."""
