"""Says before the first step whether a run can work, and what is wrong with its data, weights or machine."""
