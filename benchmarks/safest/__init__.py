"""Other systems under the same faults, for the page on reliability."""
