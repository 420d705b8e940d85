"""The city's units and what is known of them as a whole: watermarks, status, decision digest, assignments."""
