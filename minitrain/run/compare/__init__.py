"""compare.py: what differs between saved runs, whether one is better, and on which texts."""
