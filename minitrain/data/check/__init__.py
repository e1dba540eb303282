"""What is wrong with the rows of a dataset: one file for each kind of finding, none of which changes a row."""
