"""The mesh, what lies where on it, how much memory that takes, what devices can do, and several processes."""
