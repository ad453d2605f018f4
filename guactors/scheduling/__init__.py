"""Pure: what is asked for, what there is, and who gets it. No I/O, no clock, no randomness."""
