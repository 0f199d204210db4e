"""MLflow and other trackers. They get copies of what a study's files contain."""
