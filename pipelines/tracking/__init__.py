"""MLflow: projects a study's files into runs and models. The files stay the truth."""
