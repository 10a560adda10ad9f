"""How values are printed: tables, times, log lines, progress."""
