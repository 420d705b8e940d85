"""Pictures of people: the crop store, and how much of a person a crop shows."""
