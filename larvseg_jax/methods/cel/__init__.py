"""CEL (Zhao et al.): masks and classes of queries are matched apart; absent classes push no query to a background."""
