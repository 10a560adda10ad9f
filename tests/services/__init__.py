"""The real services that tests run against, found, installed or started privately; never skipped."""
