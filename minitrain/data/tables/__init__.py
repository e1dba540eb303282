"""Files, folders, datasets and Python objects -> columns of rows."""
