"""What pages that are asked for one at a time show: the people of a unit, and one person's journey."""
