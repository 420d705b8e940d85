"""The city's units, and what is stored about them as a whole: watermarks, status, decision digest, assignments."""
