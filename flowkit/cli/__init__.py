"""The command line: one verb a file; each parses, calls, prints. Heavy imports stand inside the command bodies."""
