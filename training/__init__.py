"""Training: from the engagement log to a published bundle."""
