"""The verb `edge verify-delivery`: faults on this machine, one experiment per file, and what became of every row."""
