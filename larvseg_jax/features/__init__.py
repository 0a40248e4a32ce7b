"""Features of a frozen backbone, made once and read at every step."""
