"""What a head predicts, in the names of config.json's `problem_type`, and how many labels it may have."""

PROBLEM_TYPES = ("single_label_classification", "regression", "multi_label_classification")
CLASSIFICATION, REGRESSION, MULTI_LABEL = PROBLEM_TYPES
MOST_LABELS = 2**20  # unnamed labels get names, so a huge count would fill the memory
