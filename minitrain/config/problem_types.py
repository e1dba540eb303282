"""What a head predicts, in the names of config.json's `problem_type`, and how many labels it may have."""

CLASSIFICATION, REGRESSION = PROBLEM_TYPES = ("single_label_classification", "regression")
MULTI_LABEL = "multi_label_classification"
MOST_LABELS = 2**20  # unnamed labels get names, so a huge count would fill the memory
