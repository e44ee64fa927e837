"""Speed, in one run with what it is compared with."""
