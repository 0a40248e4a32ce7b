"""What a run leaves for people: the report, its curves and colours, and the log that it is made from."""
